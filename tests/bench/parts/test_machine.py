"""A machine's folder is named by processor and kernel, and by nothing that names the host."""

import pytest

from bench.parts.machine import slug


@pytest.mark.parametrize(
    ("processor", "kernel", "name"),
    [
        (
            "Intel(R) Xeon(R) Processor @ 2.90GHz",
            "6.18.44-fc-v669",
            "intel-xeon-linux-6.18.44",
        ),
        (
            "AMD Ryzen 7 5800X 8-Core Processor",
            "6.12.5-arch1-1",
            "amd-ryzen-7-5800x-linux-6.12.5",
        ),
        ("aarch64", "6.1", "aarch64-linux-6.1"),
    ],
)
def test_slug_is_short_and_fit_for_a_folder(processor: str, kernel: str, name: str) -> None:
    assert slug(processor, kernel) == name
