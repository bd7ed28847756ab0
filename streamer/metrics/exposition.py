"""
Metrics as text, in Prometheus' exposition format 0.0.4.

Decides how families of samples are encoded, and how the families of several processes
are merged. Pure. Knows nothing of the meaning of metrics.
(https://prometheus.io/docs/instrumenting/exposition_formats/, read 2026-11-21.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from ..core.counters import Histogram

__all__ = [
    "CONTENT_TYPE",
    "Family",
    "Labels",
    "Sample",
    "counter",
    "gauge",
    "histogram",
    "merge",
    "render",
]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value. `suffix` follows the name of the family."""

    value: float
    labels: dict[str, str] = {}
    suffix: str = ""


class Family(msgspec.Struct, frozen=True, array_like=True):
    """A metric with the samples of all its labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[Sample]


def counter(name: str, help: str, *samples: tuple[float, Labels]) -> Family:
    """Return a family of counters. The name must end in ``_total``."""
    return Family(name, "counter", help, _samples(samples))


def gauge(name: str, help: str, *samples: tuple[float, Labels]) -> Family:
    """Return a family of gauges."""
    return Family(name, "gauge", help, _samples(samples))


def histogram(name: str, help: str, counts: Histogram) -> Family:
    """Return a histogram. Its buckets are cumulative."""
    samples, total = [], 0
    for bound, count in zip((*counts.bounds, "+Inf"), counts.counts, strict=True):
        total += count
        samples.append(Sample(total, {"le": str(bound)}, "_bucket"))
    samples += [Sample(counts.sum, {}, "_sum"), Sample(total, {}, "_count")]
    return Family(name, "histogram", help, samples)


def merge(processes: Mapping[str, Iterable[Family]]) -> list[Family]:
    """Merge the families of several processes, with a label `worker`."""
    merged: dict[str, Family] = {}
    for worker, families in processes.items():
        for family in families:
            one = merged.setdefault(
                family.name, msgspec.structs.replace(family, samples=[])
            )
            one.samples.extend(
                msgspec.structs.replace(
                    sample, labels={"worker": worker, **sample.labels}
                )
                for sample in family.samples
            )
    return list(merged.values())


def render(families: Iterable[Family]) -> bytes:
    """Return families in the text format."""
    lines = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        lines.extend(_line(family.name, sample) for sample in family.samples)
    return "".join(f"{line}\n" for line in lines).encode()


def _samples(values: Iterable[tuple[float, Labels]]) -> list[Sample]:
    return [Sample(value, dict(labels)) for value, labels in values]


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(
        f'{label}="{_escape(value, quoted=True)}"'
        for label, value in sample.labels.items()
    )
    return f"{name}{sample.suffix}{{{labels}}} {sample.value!r}"


def _escape(text: str, *, quoted: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quoted else text
