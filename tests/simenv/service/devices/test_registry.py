"""Devices and documents are read once."""

from __future__ import annotations

from pathlib import Path

from simenv.service.devices.registry import DeviceRegistry


def test_the_document_of_a_device_that_was_read_is_not_parsed_again(tmp_path: Path) -> None:
    registry = DeviceRegistry(tmp_path)
    device = registry.get("ideal").result(60)
    assert registry.document(device.digest, b"not parsed").result(60) is device
    other = DeviceRegistry(tmp_path).document(device.digest, device.body).result(60)
    assert other.digest == device.digest
    registry.close()
