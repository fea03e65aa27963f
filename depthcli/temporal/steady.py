"""Steady depth for one shot: every frame brought to one scale, and noise averaged along the motion of the picture."""

from __future__ import annotations

import cv2
import numpy as np

from depthcli.temporal.flow import Motion, find_motion, small_gray, warp

P = dict(coarse=4, leak=0.01, pull=0.05, glo=0.8, ghi=1.25, cap=12.0, trigg=True, mdecay=0.8, tau=3.0, taumin=0.01, taumax=0.1, interp=cv2.INTER_CUBIC, box=5, power=2)


class SteadyFilter:
    def __init__(self, *, metric=False):
        self.metric = metric
        self.s = None

    def feed(self, rgb, depth):
        gray = small_gray(rgb)
        hg, wg = gray.shape
        csize = (max(8, wg // P["coarse"]), max(8, hg // P["coarse"]))
        coarse = cv2.resize(depth, csize, interpolation=cv2.INTER_AREA)
        if self.s is None:
            z = np.zeros((hg, wg), np.float32)
            self.s = dict(gray=gray, coarse=coarse, out=depth.copy(), count=z + 1, m=z, v=z, g=1.0, o=0.0, noise=0.0, key=coarse, keyok=np.ones(csize[::-1], np.float32), age=0)
            return depth.copy()
        s = self.s
        motion = find_motion(s["gray"], gray)
        trust = motion.seen * motion.alike
        ctrust = cv2.resize(trust, csize, interpolation=cv2.INTER_AREA)
        g, o = 1.0, 0.0
        if not self.metric:
            g, o = self.fit(coarse, warp(s["coarse"], motion, cv2.INTER_CUBIC), ctrust > 0.7, (s["g"], s["o"]))
            key = warp(s["key"], motion, cv2.INTER_CUBIC); keyok = warp(s["keyok"], motion) * (ctrust > 0.7)
            if P["pull"]:
                kg, ko = self.fit(coarse, key, keyok > 0.7, (g, o))
                p = P["pull"]
                med = float(np.median(coarse))
                level = (1 - p) * (g * med + o) + p * (kg * med + ko)
                g = g ** (1 - p) * kg ** p
                o = level - g * med
            med = float(np.median(coarse))
            level = (1 - P["leak"]) * (g * med + o) + P["leak"] * med
            g = float(np.clip(g ** (1 - P["leak"]), P["glo"], P["ghi"]))
            o = level - g * med
            s["age"] += 1
            if s["age"] >= 24 and (P.get("renew") or (keyok > .7).mean() < .5): key, keyok, s["age"] = g * coarse + o, np.ones_like(keyok), 0
            s["key"], s["keyok"] = key, keyok
        cur = np.float32(g) * depth + np.float32(o)
        moved = warp(s["out"], motion, P["interp"])
        fs = (wg, hg)
        diff = cv2.resize(cur, fs, interpolation=cv2.INTER_AREA) - cv2.resize(moved, fs, interpolation=cv2.INTER_AREA)
        diff = cv2.blur(diff, (P["box"], P["box"]))
        c = g * coarse + o
        contrast = float(np.diff(np.percentile(c, (2, 98)))[0])
        a = np.abs(diff)
        noise = float(np.median(a[trust > .5])) if (trust > .5).any() else contrast
        s["noise"] = noise if not s["noise"] else .9 * s["noise"] + .1 * noise
        tau = float(np.clip(P["tau"] * 1.48 * s["noise"], P["taumin"] * contrast, P["taumax"] * contrast)) + 1e-12
        if P.get("local"):
            vv = cv2.blur(warp(s["v"], motion), (P.get("vbox", 9),) * 2)
            taul = np.clip(P["local"] * np.maximum(vv, s["noise"]), P["taumin"] * contrast, P["taumax"] * contrast)
            r = a / taul
            vd = np.float32(P.get("vd", .9))
            s["v2"] = vd * warp(s["v"], motion) + (1 - vd) * np.minimum(a, 3 * taul)
        else: r = a * np.float32(1 / tau)
        gate = trust * cv2.exp(-(r * r if P["power"] == 2 else r))
        count = warp(s["count"], motion)
        if P["trigg"]:
            b = np.float32(P["mdecay"])
            m = b * warp(s["m"], motion) + (1 - b) * diff
            v = b * warp(s["v"], motion) + (1 - b) * a
            track = np.abs(m) / (v + np.float32(1e-3 * contrast))
            s["m"], s["v"] = m * gate, v * gate + (1-gate) * np.float32(noise)
            limit = 1 + (P["cap"] - 1) * np.clip(1.3 - track, 0, 1) if P["trigg"] != "soft" else P["cap"] / (1 + P["cap"] * track ** 4)
        else:
            limit = P["cap"]
        if P.get("local"): s["v"] = s.pop("v2")
        count = np.minimum(count * gate, limit)
        w = cv2.resize(count / (count + 1), depth.shape[::-1], interpolation=cv2.INTER_LINEAR)
        out = cur + w * (moved - cur)
        s.update(gray=gray, coarse=c, out=out, count=count + 1, g=g, o=o)
        self.last = dict(g=g, o=o, tau=tau / contrast, w=float(w.mean()), noise=s["noise"] / contrast)
        return out

    def fit(self, x, ref, ok, fallback):
        if ok.mean() < .1: return fallback
        a, b = x[ok], ref[ok]
        ma, mb = np.median(a), np.median(b)
        sa, sb = np.median(np.abs(a - ma)), np.median(np.abs(b - mb))
        if sa <= 1e-6 * max(1e-9, abs(ma)) : return fallback
        g = sb / sa; o = mb - g * ma
        if P.get("trim"):
            r = np.abs(g * a + o - b); k = r <= 4.5 * np.median(r) + 1e-9
            a, b = a[k], b[k]
            if a.std() > 0: g = b.std() / a.std(); o = b.mean() - g * a.mean()
        return float(np.clip(g, P["glo"], P["ghi"])), float(mb - np.clip(g, P["glo"], P["ghi"]) * ma) if not P.get("trim") else float(b.mean() - np.clip(g, P["glo"], P["ghi"]) * a.mean())
