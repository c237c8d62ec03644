"""Break the pipeline on purpose, and count what happens: `python tests/campaign --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[0:1] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "data/demo")]
    from campaign.command import main

    main(prog_name="python tests/campaign")
