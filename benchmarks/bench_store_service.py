"""A store on the network: latency and server CPU of queries and cut-outs over HTTP, beside the work without HTTP.

    python benchmarks/bench_store_service.py [--rows 1000000] [--requests 200]

The server is ``skyloom store serve`` in a process of its own on loopback, the client one connection that is kept open.
Queries are of a store with the given number of rows, cut-outs of a mock of SDSS frames.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import requests

from measure import ENVIRONMENT, command_line
from mock_index import write_index
from store_table import show

SHAPE = (600, 800)
SIDE = 64


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Serve a store in a process of its own; yield its address and the process."""
    command = command_line("store", "serve", folder, "--port", 0)
    environment = ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        found = re.search(r"http://[\d.:]+", process.stdout.readline())
        try:
            yield found[0], psutil.Process(process.pid)
        finally:
            process.terminate()


def measured(ask: Callable[[int], int], server: psutil.Process, number: int) -> tuple[float, float, float]:
    """Return the median latency, its 95th percentile and the CPU of the server per request, in ms."""
    for warm in range(5):
        ask(warm)
    times, before = [], sum(server.cpu_times()[:2])
    for turn in range(number):
        begin = time.perf_counter()
        ask(turn)
        times.append(time.perf_counter() - begin)
    cpu = (sum(server.cpu_times()[:2]) - before) / number
    return 1e3 * statistics.median(times), 1e3 * float(np.quantile(times, 0.95)), 1e3 * cpu


def tell(check: str, figures: tuple[float, float, float], more: str = "") -> None:
    median, late, cpu = figures
    show(check, f"{median:.1f} ms, 95 % below {late:.1f} ms; server {cpu:.1f} ms CPU{more}")


def show_queries(folder: Path, rows: int, number: int) -> None:
    write_index(folder, rows)
    generator = np.random.default_rng(1)
    places = [(generator.uniform(0, 50), generator.uniform(-1.2, 1.2)) for _ in range(number + 5)]
    with served(folder) as (address, server), requests.Session() as session:

        def query(turn: int, **parameters: object) -> int:
            ra, dec = places[turn]
            response = session.get(
                f"{address}/sia2/query", params={"POS": f"CIRCLE {ra} {dec} 0.05"} | parameters
            )
            response.raise_for_status()
            return response.content.count(b"<TR>")

        mean = statistics.mean(query(turn) for turn in range(20))
        name = f"query of {rows:.0e} rows"
        tell(f"{name}, circle of 0.05 deg", measured(query, server, number), f"; {mean:.0f} rows")
        timed = measured(lambda turn: query(turn, TIME="53000 53300"), server, number)
        tell(f"{name}, circle and time", timed)
        wide = measured(
            lambda turn: query(turn, POS="RANGE 0 60 -2 2", MAXREC=1000), server, max(number // 20, 3)
        )
        tell(f"{name}, 1000 rows of a stripe", wide)
        everywhere = measured(
            lambda turn: query(turn, POS="", BAND="5e-7", MAXREC=10), server, max(number // 20, 3)
        )
        tell(f"{name}, no place, 10 rows", everywhere)
        show("  memory of the server", f"{server.memory_info().rss / 1e6:.0f} MB")


def show_cutouts(folder: Path, number: int) -> None:
    import skyloom.store
    from skyloom.mock.sdss.files import write_sdss_mock
    from skyloom.store.service.soda import fits_bytes

    write_sdss_mock(folder / "mock", seed=6, shape=SHAPE, n_spectra=2)
    with skyloom.store.create(folder / "sky") as store:
        store.ingest([folder / "mock"], workers=1)
        images = store.images(band="r")
        name = str(images["obs_id"][0])
        ra, dec = (float(images[column][0].value) for column in ("s_ra", "s_dec"))
        radius = 0.5 * SIDE * float(images["pixel_scale"][0].value) / 3600
        offsets = np.random.default_rng(2).uniform(-0.01, 0.01, (number + 5, 2))
        spectrum = str(store.spectra()["obs_id"][0])
        places = [(ra + east, dec + north) for east, north in offsets]
        start = time.process_time()
        for place in places:
            fits_bytes(store.cutout(name, place, SIDE))
        inside = 1e3 * (time.process_time() - start) / len(places)
    with served(folder / "sky") as (address, server), requests.Session() as session:

        def soda(**parameters: object) -> int:
            response = session.get(f"{address}/soda/sync", params=parameters)
            response.raise_for_status()
            return len(response.content)

        def part(turn: int) -> int:
            return soda(ID=name, CIRCLE=f"{places[turn][0]} {places[turn][1]} {radius}")

        figures = measured(part, server, number)
        tell(f"cut-out of {SIDE} x {SIDE}, with variance and mask", figures, f"; {inside:.1f} without HTTP")
        size = soda(ID=name)
        whole = measured(lambda _: soda(ID=name), server, max(number // 20, 3))
        tell(f"whole image of {SHAPE[1]} x {SHAPE[0]}", whole, f"; {size / 1e6:.1f} MB")
        tell("spectrum", measured(lambda _: soda(ID=spectrum), server, number))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        show_cutouts(Path(temporary) / "cutouts", options.requests)
        show_queries(Path(temporary) / "queries", options.rows, options.requests)


if __name__ == "__main__":
    main()
