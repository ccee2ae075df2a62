"""Fuzz the library: give it inputs that were made to break it, and count what happens.

    python tools/fuzz.py        # more than 100,000 inputs, counted in results/reliability.json
    python tools/fuzz.py --inputs 7000 --only dicom --no-results

Each target is played in a process of its own by hypothesis, and once more by atheris (coverage
guided) where that package is installed. A crash, a hang of more than ten seconds, memory beyond
the bound, or any error but the library's own is a finding; its input is kept in tests/corpus.
"""

import argparse
import faulthandler
import hashlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HANG = 10.0
"""Seconds after which an input counts as a hang."""

MEMORY = 512 * 2**20
"""Bytes that a process may grow by, beyond what its libraries and the seeds take, while no image
may have more than fuzz_targets.MAX_PIXELS pixels."""

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "tests" / "corpus"
RESULTS = ROOT / "results" / "reliability.json"
SHARES = {  # of the inputs: those that take longest are the fewest
    "images": 0.26,
    "dicom": 0.07,
    "arguments": 0.025,
    "recipes": 0.025,
    "weights": 0.15,
    "checkpoints": 0.2,
    "archives": 0.27,
}
ATHERIS_SHARE = 0.2  # of the inputs: a coverage-guided input costs more, and finds more


class Count:
    """What came of the inputs of one process; written to a file as it goes on."""

    def __init__(self, name: str, path: Path) -> None:
        from fuzz_targets import TARGETS, judge

        self.target, self.path, self.judge = TARGETS[name], path, judge
        self.inputs = self.taken = 0
        self.slowest = 0.0
        self.findings: dict[str, str] = {}
        for seed in self.target.seeds():  # warms up, too: the memory counts from here
            judge(self.target, seed)
        self.start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.peak = self.start
        self.inputs = 0

    def play(self, data: bytes) -> None:
        faulthandler.dump_traceback_later(HANG, exit=True)
        self.path.with_suffix(".input").write_bytes(data)
        began = time.perf_counter()
        try:
            self.taken += self.judge(self.target, data)
        except AssertionError as error:
            self.find(data, str(error))
        faulthandler.cancel_dump_traceback_later()
        self.slowest = max(self.slowest, time.perf_counter() - began)
        self.inputs += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if peak > max(self.peak, self.start + MEMORY):
            self.find(data, f"memory: {(peak - self.start) / 2**20:.0f} MiB more than at the start")
        self.peak = max(peak, self.peak)
        if self.inputs % 200 == 0:
            self.write()

    def find(self, data: bytes, why: str) -> None:
        kind = "\n".join(why.strip().splitlines()[-1:])[:160]
        if kind not in self.findings:
            self.findings[kind] = keep(self.target.name, data)
            print(f"FINDING {self.target.name} {self.findings[kind]}\n{why[-3000:]}", flush=True)

    def write(self) -> None:
        self.path.write_text(
            json.dumps(
                {
                    "inputs": self.inputs,
                    "taken": self.taken,
                    "refused": self.inputs - self.taken - len(self.findings),
                    "findings": self.findings,
                    "slowest_seconds": round(self.slowest, 3),
                    "memory_growth_mib": round((self.peak - self.start) / 2**20, 1),
                }
            )
        )


def keep(name: str, data: bytes) -> str:
    """Keep an input in the corpus; return its path below it."""
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:12]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"{name}/{path.name}"


def by_hypothesis(count: Count, inputs: int, seconds: float) -> None:
    """Play inputs that hypothesis draws."""
    from hypothesis import HealthCheck, Phase, given, settings

    end = time.monotonic() + seconds
    round_number = 0
    while count.inputs < inputs and time.monotonic() < end:
        size = min(2000, inputs - count.inputs)
        round_number += 1

        @settings(
            max_examples=size,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(count.target.inputs())
        def play(data: bytes) -> None:
            if count.inputs < inputs and time.monotonic() < end:
                count.play(data)

        play()


def by_atheris(count: Count, inputs: int, seconds: float) -> None:
    """Play inputs that libFuzzer makes from the seeds by what they cover of the library."""
    import atheris

    folder = Path(tempfile.mkdtemp(prefix="seeds-"))
    for number, seed in enumerate(count.target.seeds()):
        (folder / str(number)).write_bytes(seed)

    def play(data: bytes) -> None:
        count.play(data)
        if count.inputs >= inputs:
            count.write()

    options = [f"-runs={inputs}", f"-max_total_time={int(seconds)}", "-max_len=20000"]
    options += ["-rss_limit_mb=0", "-timeout=60", "-verbosity=0", "-detect_leaks=0"]
    atheris.Setup(["fuzz", *options, str(folder)], play)
    atheris.Fuzz()  # never returns


ENGINES: dict[str, Callable[[Count, int, float], None]] = {
    "hypothesis": by_hypothesis,
    "atheris": by_atheris,
}


def play_by(engine: str, names: list[str], inputs: int, seconds: float, folder: Path) -> None:
    """Import the library once, and play each target in a process that is forked from there.

    A target whose count is in the folder already is passed over.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["srgan_lib", "pydicom.pixels"]):
            import fuzz_targets
    else:
        import fuzz_targets
    import torch

    torch.set_num_threads(1)
    os.environ["SRGAN_MAX_PIXELS"] = str(fuzz_targets.MAX_PIXELS)
    for name in names:
        path = folder / f"{name}-{engine}.json"
        if path.exists():
            continue
        began = time.monotonic()
        process = os.fork()
        if process == 0:
            count = Count(name, path)
            ENGINES[engine](count, int(inputs * SHARES[name]) + 1, seconds)
            count.write()
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        found = json.loads(path.read_text()) if path.exists() else {"inputs": 0}
        if ended:  # a crash, or a hang, which faulthandler ends
            data = path.with_suffix(".input")
            where = keep(name, data.read_bytes()) if data.exists() else "no input"
            found.setdefault("findings", {})[f"ended with {ended}"] = where
            print(f"FINDING {name} {where}: the process ended with {ended}", flush=True)
        found["seconds"] = round(time.monotonic() - began)
        path.write_text(json.dumps(found))
        print(f"{name}, {engine}: {json.dumps(found)}", flush=True)


def play_all(names: list[str], inputs: int, seconds: float) -> dict[str, dict[str, object]]:
    """Play all targets; return what was counted, by target and engine."""
    shares = {"hypothesis": 1.0}
    if importlib.util.find_spec("atheris"):
        shares = {"hypothesis": 1 - ATHERIS_SHARE, "atheris": ATHERIS_SHARE}
    counted: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for engine, share in shares.items():
            command = [sys.executable, __file__, "--child", engine, folder]
            command += ["--inputs", str(int(inputs * share)), "--seconds", str(seconds)]
            command += [word for name in names for word in ("--only", name)]
            subprocess.run(command, check=True)
            for name in names:
                found = json.loads((Path(folder) / f"{name}-{engine}.json").read_text())
                counted[f"{name}, {engine}"] = found
    return counted


def main() -> None:
    """Play all that was asked for, and write what was counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=126_000, help="in total")
    parser.add_argument("--seconds", type=float, default=36_000, help="at most, for each target")
    parser.add_argument("--only", choices=SHARES, action="append", help="only this target")
    parser.add_argument("--no-results", action="store_true", help="write no results file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        engine, folder = given.child
        play_by(engine, given.only, given.inputs, given.seconds, Path(folder))
        return
    counted = play_all(given.only or list(SHARES), given.inputs, given.seconds)
    if not given.no_results:
        from reliability import read_results, record

        if given.only:
            counted = read_results().get("fuzzing", {}).get("played", {}) | counted
        record("fuzzing", {"hang_seconds": HANG, "memory_mib": MEMORY // 2**20, "played": counted})
    sys.exit(any(found.get("findings") for found in counted.values()))


if __name__ == "__main__":
    main()
