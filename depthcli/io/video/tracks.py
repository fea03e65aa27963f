"""Choose the stream that is the clip, among several with video.

The order is that of FFmpeg and of players: purpose before size.

1. covers, thumbnails, and streams that only add to another one (enhancement layers, tiles) are never the clip;
2. moving pictures come before a still;
3. the clip itself before commentaries, other languages, and versions for impaired sight or hearing;
4. a stream marked as default before the others; tracks that phones switch off (depth, unedited take) lack that mark;
5. the most pixels;
6. the first.

The second view of a spatial (MV-HEVC) clip is not a stream, but a layer that decoders skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from depthcli.errors import ClipError

READABLE = "mp4, mov, mkv, webm, avi and other video files can be read"
NEVER = frozenset({"attached_pic", "timed_thumbnails", "dependent"})
_BESIDE = frozenset({"dub", "comment", "hearing_impaired", "visual_impaired"})


@dataclass(frozen=True)
class VideoTrack:
    """A video stream. purposes: FFmpeg's names of its dispositions. frames: as announced, 0 if unknown.

    decodable: there is a decoder for it.
    """

    index: int
    width: int
    height: int
    purposes: frozenset[str]
    frames: int = 0
    decodable: bool = True


def choose_track(name: str, tracks: Sequence[VideoTrack], sound: bool) -> tuple[int, str]:
    """Return the index of the stream that is the clip, and a note on the choice, or empty. Raises ClipError."""
    clips = [track for track in tracks if not track.purposes & NEVER]
    if not clips:
        what = "sound and no video" if sound else "a cover picture and no video" if tracks else "no video"
        raise ClipError(f"{name} holds {what}", READABLE)
    able = [track for track in clips if track.decodable]
    if not able:
        raise ClipError(f"{name} holds video of a coding that cannot be decoded here", "convert it to H.264 first")
    best = max(able, key=_rank)
    if len(clips) == 1:
        return best.index, ""
    others = ", ".join(_brief(track) for track in clips if track is not best)
    why = ", the default one," * ("default" in best.purposes)
    return best.index, f"{_brief(best)}{why} is the clip; left out: {others}"


def _rank(track: VideoTrack) -> tuple[bool, bool, bool, int]:
    moves = "still_image" not in track.purposes and track.frames != 1
    return moves, not track.purposes & _BESIDE, "default" in track.purposes, track.width * track.height


def _brief(track: VideoTrack) -> str:
    return f"stream {track.index} ({track.width}x{track.height})"
