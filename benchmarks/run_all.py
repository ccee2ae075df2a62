"""Run all benchmarks, one after the other, and write results/benchmarks.json and the page.

Arguments are handed on to each script: --rounds, --device, --note, --quick.
"""

import subprocess
import sys

import page


def main(arguments: list[str]) -> None:
    """Run each script in a process of its own."""
    for name in page.SCRIPTS:
        print(f"\n{name}", flush=True)
        script = page.ROOT / "benchmarks" / f"{name}.py"
        command = [sys.executable, str(script), "--out", str(page.RESULTS), *arguments]
        subprocess.run(command, check=True)
    page.main()


if __name__ == "__main__":
    main(sys.argv[1:])
