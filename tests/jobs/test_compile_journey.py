"""A compile resolves its model once and reads the checkpoint once, however many input sizes it has."""

from __future__ import annotations

from collections import Counter

from depthcli.choices import ModelChoice
from depthcli.jobs import compile as compiling
from depthcli.jobs.compile import CompileJob, compile_model
from depthcli.nets import build


def test_two_sizes_are_one_journey(monkeypatch, tmp_path) -> None:
    calls: Counter[str] = Counter()

    def counted(module, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments, **options):
            calls[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    counted(compiling, "resolve_model")
    counted(build, "read_state")
    counted(compiling, "write_network")
    job = CompileJob("torchscript", ModelChoice("tiny"), ((28, 42), (42, 28)), output=f"{tmp_path}/")
    results = list(compile_model(job, print))
    assert [result.size for result in results] == [(28, 42), (42, 28)]
    assert all(path.is_file() for result in results for path in result.paths)
    assert calls == {"resolve_model": 1, "read_state": 1, "write_network": 2}
