"""How long `unfade --help` and `import unfade` take, beside a bare Python that does nothing.

python benchmarks/startup.py
"""

import subprocess
import sys
import time

HELP = "import sys; sys.argv = ['unfade', '--help']; from unfade.cli import main; main()"
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import unfade": [sys.executable, "-c", "import unfade"],
    "unfade --help": [sys.executable, "-c", HELP],
}


def seconds(command: list[str], repeat: int = 7) -> float:
    """The median time of a whole process."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return sorted(times)[repeat // 2]


if __name__ == "__main__":
    bare = seconds(COMMANDS["python -c pass"])
    for name, command in COMMANDS.items():
        took = seconds(command)
        print(f"{name:16} {took:.3f} s, {took / bare:.1f} times a bare Python")
