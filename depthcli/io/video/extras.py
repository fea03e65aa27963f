"""Copy sound, subtitles, chapters, timecode and title of a clip into the film of its depth.

They are copied unchanged if the container of the film can hold them, and named in a note if it cannot.
"""

from __future__ import annotations

import contextlib
import errno
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

from depthcli.io.names import printable
from depthcli.io.video.libav import ATTACHED_PICTURE, disposition_of, open_container, reason_of

# Metadata of the work. Those of the file (brand, encoder, dates of writing) are not copied.
DESCRIPTIVE = frozenset(
    "title artist author album album_artist composer date genre copyright description synopsis show".split()
)
_FAILURES = 100  # limit of unreadable packets in a row
_RESTART = Fraction(1)  # seconds: a larger jump back is a restarted clock, as in joined broadcasts
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d+)")
PART = "only a part of the clip was chosen"


@dataclass(frozen=True)
class Along:
    """The clip that extras are copied from.

    whole: the film shows all of it, at its speed. origin: time of its first frame on the clock of the file, in seconds.
    rate: frames per second of the film.
    """

    path: Path
    whole: bool
    origin: Fraction
    rate: Fraction


def cannot_hold(container: str, codec: str, kind: str) -> str:
    """Return the note for a track that does not fit into the film."""
    what, was = ("subtitles", "were") if kind == "subtitle" else ("sound", "was")
    return f"{container} cannot hold {printable(codec)} {what}, which {was} left out"


def of_a_part(kinds: set[str]) -> Optional[str]:
    """Return the note for sound and subtitles that are copied only with whole clips. kinds: "audio", "subtitle"."""
    names = [name for kind, name in (("audio", "sound"), ("subtitle", "subtitles")) if kind in kinds]
    were = "were" if names[-1:] == ["subtitles"] else "was"
    return f"the {' and the '.join(names)} {were} left out, as {PART}" if names else None


# --- Timecode ---------------------------------------------------------------------------------------------------------


def timecode_at(timecode: str, rate: Fraction, seconds: Fraction, film_rate: Fraction) -> Optional[str]:
    """Return the timecode so many seconds later, counted in frames of the film; None for an invalid one.

    rate, film_rate: frames per second of the clip and of the film. Drop-frame counting (`;` before the frames) skips
    two numbers of every 30 at each full minute except every tenth, so that 30000/1001 keeps the time of day.
    """
    found = _TIMECODE.fullmatch(timecode.strip())
    base, film_base = round(rate), round(film_rate)
    if not found or base < 1 or film_base < 1:
        return None
    hours, minutes, second, frame = (int(found[group]) for group in (1, 2, 3, 5))
    dropped = base // 15 if found[4] != ":" and base % 30 == 0 else 0
    minutes += 60 * hours
    number = (60 * minutes + second) * base + frame - dropped * (minutes - minutes // 10)
    minutes, second, frame = _counted(number + round(seconds * rate), base, dropped)
    if film_base != base:
        frame = frame * film_base // base
        dropped = film_base // 15 if dropped and film_base % 30 == 0 else 0
        if not second and minutes % 10:
            frame = max(frame, dropped)
    hours, minutes = minutes // 60 % 24, minutes % 60
    return f"{hours:02}:{minutes:02}:{second:02}{';' if dropped else ':'}{frame:02}"


def _counted(number: int, base: int, dropped: int) -> tuple[int, int, int]:
    """Return (minutes, second, frame) of a frame by its number from midnight on."""
    if dropped:
        tens, rest = divmod(number, 600 * base - 9 * dropped)
        number += 9 * dropped * tens
        if rest >= 60 * base:
            number += dropped * (1 + (rest - 60 * base) // (60 * base - dropped))
    seconds, frame = divmod(number, base)
    return seconds // 60, seconds % 60, frame


# --- By the libraries of FFmpeg ---------------------------------------------------------------------------------------


class Extras:
    """The streams copied beside the frames of a film, packet by packet.

    Raises what PyAV raises, OSError and ValueError if the clip cannot be opened.
    """

    def __init__(self, av: Any, along: Along, target: Any, notes: list[str]) -> None:
        self._av, self._along, self._target, self._notes = av, along, target, notes
        self._damaged = 0
        self._start = Fraction(0)
        self._waiting: Optional[Any] = None
        self._tracks: dict[int, Any] = {}
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(along.path.open("rb"))
            self._source = open_container(av, file)
            stack.callback(self._source.close)
            self._chapters = self._source.chapters() if hasattr(self._source, "chapters") else []  # PyAV 14 has not
            self._choose()
            self._packets = self._read([stream for stream in self._source.streams if stream.index in self._tracks])
            self._stack = stack.pop_all()

    def begin(self, video: Any, start: Fraction) -> None:
        """Write the metadata of the header. video: the stream of the film. start: seconds into the clip."""
        self._start = start
        self._target.metadata.update(descriptive(self._source.metadata))
        timecode, rate = self._timecode()
        if timecode:
            ours = timecode_at(timecode, rate, start, self._along.rate)
            if ours:
                video.metadata["timecode"] = ours
            else:
                self._note(f"the timecode {printable(timecode)} was left out: it does not fit the rate of the frames")

    def copy_until(self, time: Optional[Fraction]) -> None:
        """Copy the packets before a time of the film, in seconds; None: all."""
        while True:
            packet, self._waiting = self._waiting or next(self._packets, None), None
            if packet is None:
                return
            if time is not None and packet.dts * Fraction(packet.time_base) > time:
                self._waiting = packet
                return
            packet.stream = self._tracks[packet.stream.index]
            try:
                self._target.mux(packet)
            except self._av.FFmpegError as error:
                if error.errno in errno.errorcode and error.errno != errno.EINVAL:  # the disk, and not the packet
                    raise
                self._damaged += 1

    def finish(self, length: Fraction) -> None:
        """Copy the rest, and the chapters within a film of so many seconds."""
        self.copy_until(None)
        if self._damaged:
            packets = f"{self._damaged} damaged packet{'s' * (self._damaged != 1)}"
            self._note(f"{packets} of the sound or the subtitles could not be kept")
        kept: list[dict[str, Any]] = []
        for chapter in self._chapters:
            unit = Fraction(chapter["time_base"])
            begin, end = (chapter[key] * unit - self._along.origin - self._start for key in ("start", "end"))
            begin, end = max(begin, Fraction(0)), min(end, length)
            if begin < end:
                times = {"id": len(kept), "start": round(1000 * begin), "end": round(1000 * end)}
                kept.append({**times, "time_base": Fraction(1, 1000), "metadata": chapter["metadata"]})
        if kept:
            self._target.set_chapters(kept)

    def close(self) -> None:
        """Close the clip."""
        self._stack.close()

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def _choose(self) -> None:
        """Add the tracks that the film can hold, and note the others."""
        of_a_part_only = set()
        for stream in self._source.streams:
            codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
            if stream.type in ("audio", "subtitle"):
                if not self._along.whole:
                    of_a_part_only.add(stream.type)
                elif not _holds(self._av, self._target.format.name, stream):
                    self._note(cannot_hold(self._target.format.name, codec, stream.type))
                else:
                    self._tracks[stream.index] = self._copied(stream)
            elif stream.type == "video":
                if disposition_of(stream) & ATTACHED_PICTURE:
                    self._note("the cover picture was left out")
            elif not self._is_known(stream):
                what = "attachment" if stream.type == "attachment" else "data stream"
                name = stream.metadata.get("filename") or stream.metadata.get("handler_name") or f"{stream.index}"
                self._note(f"the {what} {printable(name)} was left out")
        if note := of_a_part(of_a_part_only):
            self._note(note)

    def _copied(self, stream: Any) -> Any:
        track = self._target.add_stream_from_template(stream)
        title = stream.metadata.get("title") or stream.metadata.get("name")
        track.metadata.update({"language": stream.language} if stream.language else {})
        track.metadata.update({"title": title} if title else {})
        track.disposition = disposition_of(stream)
        return track

    def _is_known(self, stream: Any) -> bool:
        """Return whether a data stream holds the timecode or the chapters, which are read elsewhere."""
        return "timecode" in stream.metadata or (stream.frames > 0 and stream.frames == len(self._chapters))

    def _timecode(self) -> tuple[str, Fraction]:
        """Return the timecode of the first frame, or empty, and its rate."""
        videos = (stream for stream in self._source.streams.video if not disposition_of(stream) & ATTACHED_PICTURE)
        rates = [Fraction(stream.average_rate or 0) for stream in videos]
        for place in (*self._source.streams, self._source):
            for key, value in place.metadata.items():
                if key.lower() == "timecode":
                    return value, next(filter(None, rates), self._along.rate)
        return "", self._along.rate

    def _read(self, streams: list[Any]) -> Iterator[Any]:
        """Yield the packets on the clock of the film, skipping unreadable ones."""
        failures = 0
        clocks = {stream.index: _PacketClock(self._along.origin) for stream in streams}
        packets = self._source.demux(*streams) if streams else iter(())
        while True:
            try:
                packet = next(packets, None)
            except (self._av.FFmpegError, OSError, ValueError) as error:
                failures += 1
                if failures > _FAILURES:
                    self._note(f"the sound ends early: {reason_of(error)}")
                    return
                packets = self._source.demux(*streams)
                continue
            if packet is None:
                return
            if packet.dts is None or packet.size == 0:
                self._damaged += packet.size > 0
                continue
            failures = 0
            clocks[packet.stream.index].place(packet)
            yield packet


class _PacketClock:
    """Shifts the time stamps of a track to those of the film, which begins at 0."""

    def __init__(self, origin: Fraction) -> None:
        self._shift, self._last, self._duration = -origin, Fraction(0), Fraction(0)
        self._begun = False

    def place(self, packet: Any) -> None:
        unit = Fraction(packet.time_base)
        time = packet.dts * unit + self._shift
        if self._begun and self._last - time > _RESTART:
            restarted = self._last + self._duration
            self._shift, time = self._shift + restarted - time, restarted
        self._begun, self._last, self._duration = True, time, (packet.duration or 0) * unit
        shift = round(self._shift / unit)
        packet.pts = (packet.dts if packet.pts is None else packet.pts) + shift
        packet.dts += shift


def descriptive(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a file that describe the work, not the file."""
    return {key.lower(): value for key, value in metadata.items() if key.lower() in DESCRIPTIVE}


def _holds(av: Any, container: str, stream: Any) -> bool:
    """Return whether a container takes a track, by trying: some list more than they can write."""
    if not stream.codec_context:
        return False
    with contextlib.suppress(av.FFmpegError, ValueError):
        trial = av.open(io.BytesIO(), "w", format=container)
        with contextlib.suppress(av.FFmpegError), trial:  # which has no end, as it has no packets
            trial.add_stream_from_template(stream)
            trial.start_encoding()
            return True
    return False
