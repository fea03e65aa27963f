"""`depth serve`: the service, and the check whether one is ready."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.choices.model import ModelChoice
from depthcli.cli.groups import ACCESS, ADVANCED, CLIPS, LIMITS, MODEL, flag, grouped, option
from depthcli.cli.options import DETECTORS, MODELS, BackendOptions
from depthcli.errors import UsageError
from depthcli.jobs.parsing import parse_bytes, parse_duration, parse_list


@grouped()
def serve(
    address: Annotated[
        Optional[str],
        typer.Argument(metavar="[URL]", help="With --check: the service. Default: where it would listen."),
    ] = None,
    check: Annotated[bool, flag("Exit with 0 if a service is ready there, else 5.", "--check")] = False,
    host: Annotated[
        str, option("Address to listen on.", panel=ACCESS, metavar="ADDRESS", show_default=True)
    ] = "127.0.0.1",
    port: Annotated[int, option("Port; 0 takes a free one.", panel=ACCESS, metavar="N", show_default=True)] = 7373,
    uds: Annotated[
        Optional[Path], option("Listen on a unix socket that only you can open.", panel=ACCESS, metavar="PATH")
    ] = None,
    token_file: Annotated[
        Optional[Path],
        option("Requests must bring the token in it. Default: $DEPTH_TOKEN.", panel=ACCESS, metavar="FILE"),
    ] = None,
    no_token: Annotated[bool, flag("Let other machines in without one.", "--no-token", panel=ACCESS)] = False,
    allow_host: Annotated[
        Optional[list[str]], option("A further name of this machine. Repeatable.", panel=ACCESS, metavar="NAME")
    ] = None,
    no_page: Annotated[bool, flag("Leave out the web page.", "--no-page", panel=ACCESS)] = False,
    root_path: Annotated[str, option("Path under which a proxy shows this.", panel=ADVANCED, metavar="PATH")] = "",
    models: Annotated[
        Optional[list[str]],
        option("Models, the default first. Default: vits, else tiny.", panel=MODEL, metavar="A,B", values=MODELS),
    ] = None,
    detector: Annotated[
        Optional[str],
        option("Finds objects, as of depth objects. Default: none.", panel=MODEL, metavar="NAME", values=DETECTORS),
    ] = None,
    checkpoint: Annotated[Optional[Path], option("Weights of the only model.", panel=MODEL, metavar="FILE")] = None,
    offline: Annotated[bool, flag("Never download.", "--offline", panel=MODEL)] = False,
    input_size: Annotated[
        Optional[int],
        option("Shorter side of the network input. Default: 518 (tiny: 210).", panel=MODEL, metavar="PIXELS"),
    ] = None,
    max_depth: Annotated[
        Optional[float], option("Largest depth of your own metric weights.", panel=ADVANCED, metavar="METRES")
    ] = None,
    trust: Annotated[
        bool,
        flag("Load an unknown .pth, which can run code in torch before 2.6.", "--trust-checkpoint", panel=ADVANCED),
    ] = False,
    keep_alive: Annotated[
        str,
        option(
            "How long an idle model stays, but the first; 0, or -1 for ever.",
            panel=MODEL,
            metavar="TIME",
            show_default=True,
        ),
    ] = "30m",
    queue: Annotated[int, option("Pictures that may wait.", panel=LIMITS, metavar="N", show_default=True)] = 64,
    max_bytes: Annotated[str, option("Of a picture's file.", panel=LIMITS, metavar="SIZE", show_default=True)] = "64M",
    max_megapixels: Annotated[float, option("Of a picture.", panel=LIMITS, metavar="N", show_default=True)] = 100.0,
    drain: Annotated[
        str, option("Time to finish what was accepted, after SIGTERM.", panel=LIMITS, metavar="TIME", show_default=True)
    ] = "60s",
    clips: Annotated[
        Optional[Path], option("Folder for clips, scenes and results. Default: neither.", panel=CLIPS, metavar="FOLDER")
    ] = None,
    max_clip_bytes: Annotated[
        str, option("Of a clip's file, or a scene's pictures.", panel=CLIPS, metavar="SIZE", show_default=True)
    ] = "8G",
    keep: Annotated[str, option("How long results are kept.", panel=CLIPS, metavar="TIME", show_default=True)] = "24h",
    disk: Annotated[
        str, option("For clips, scenes and results.", panel=CLIPS, metavar="SIZE", show_default=True)
    ] = "20G",
    gallery: Annotated[
        Optional[list[str]], option("Show a folder of results. Repeatable.", panel=CLIPS, metavar="FOLDER")
    ] = None,
    *,
    backend: BackendOptions,
) -> None:
    """Keep a model loaded and answer over HTTP, with a web page.

    depth serve                                prints the address when it is ready
    curl --data-binary @photo.jpg "localhost:7373/v1/depth?format=gray&name=photo.jpg" -o depth.png
    depth serve --uds /run/user/1000/depth.sock --models tiny,vits
    depth serve --check                        exits with 0 if the service is ready

    Only this machine reaches it. Another --host needs a token: --token-file, or the variable DEPTH_TOKEN.
    """
    from depthcli.cli.report import log
    from depthcli.serve.settings import ServiceSettings, check_installed, read_token

    if check:
        here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
        _check(address or (f"unix:{uds}" if uds else f"http://{here}:{port}"), read_token(token_file))
        return
    if address is not None:
        raise UsageError(
            f"{address} makes no sense without --check", "name the place to listen on with --host and --port"
        )
    settings = ServiceSettings(
        host=host,
        port=port,
        uds=uds,
        token="" if no_token and token_file is None else read_token(token_file),
        no_token=no_token,
        hosts=tuple(allow_host or ()),
        models=parse_list(models),
        choice=ModelChoice(checkpoint=checkpoint, offline=offline, max_depth=max_depth, trust=trust),
        backend=backend.choice(),
        input_size=input_size,
        detector=detector,
        queue=queue,
        max_bytes=parse_bytes(max_bytes, "max_bytes"),
        max_pixels=round(max_megapixels * 1e6),
        keep_alive=parse_duration(keep_alive, "keep_alive"),
        drain=parse_duration(drain, "drain"),
        clips=clips,
        max_clip_bytes=parse_bytes(max_clip_bytes, "max_clip_bytes"),
        keep=parse_duration(keep, "keep"),
        disk=parse_bytes(disk, "disk"),
        galleries=tuple(map(Path, gallery or ())),
        page=not no_page,
        root_path=root_path.rstrip("/"),
    )
    check_installed()
    from depthcli.serve.server import serve as run_service

    raise typer.Exit(run_service(settings, log, lambda ready: print(ready, flush=True)))


def _check(address: str, token: str) -> None:
    """Leave with 0 if a service is ready; raise EngineError with the reason if not."""
    from depthcli.jobs.remote import Client

    with Client(address, token, timeout=10) as client:
        client.check_ready()
