"""An interpreter with this project's packages that every user of the machine may run.

``.venv`` may stand on an interpreter in somebody's closed home folder. An agent of another user
than that one needs another: of the same version, since compiled packages are of one.
"""

import site
import subprocess
import sys
from pathlib import Path

PROBE = "import accredit_client, cryptography, sys; print(*sys.version_info[:2])"
COMMAND = "from accredit_client.cli import main\n\nraise SystemExit(main())\n"
NOBODY = 65534
CANDIDATES = (
    Path(sys.executable).resolve(),
    Path("/usr/bin/python3"),
    Path("/usr/local/bin/python3"),
)
PACKAGES = ("credentials", "attestors", "issuer", "client")


def make(folder: Path) -> Path | None:
    """Make one below a folder that others may pass; None where this machine has none.

    The command ``accredit`` is beside it. Needs root, to try it as somebody else.
    """
    root = Path(__file__).resolve().parent.parent
    paths = [*site.getsitepackages(), *(str(root / each) for each in PACKAGES)]
    version = f"{sys.version_info[0]} {sys.version_info[1]}"
    for number, base in enumerate(CANDIDATES):
        home = folder / f"python-{number}"
        python = home / "bin" / "python"
        if _said(base, "import sys; print(*sys.version_info[:2])") != version:
            continue
        made = subprocess.run([base, "-m", "venv", "--without-pip", home], check=False, timeout=60)
        if made.returncode != 0:
            continue
        (packages,) = home.glob("lib/python*/site-packages")
        (packages / "accredit.pth").write_text("\n".join(paths) + "\n")
        if _said(python, PROBE) == version:
            command = python.with_name("accredit")
            command.write_text(f"#!{python} -Es\n{COMMAND}")
            command.chmod(0o755)
            return python
    return None


def _said(python: Path, text: str) -> str | None:
    """What a program prints for somebody else; None where that one may not run it."""
    try:
        done = subprocess.run(
            [python, "-Esc", text],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
