"""Facts about the machine for measurements."""

from __future__ import annotations

from depthcli.host import machine


def test_the_machine_is_described():
    assert machine.cpu_model()
    assert isinstance(machine.cpu_flags(), tuple)
    assert "numpy" in machine.versions() and "torch" in machine.versions()
