import json
import math
from pathlib import Path
from typing import Any

from rlft.run.tracking import METRICS


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl, non-finite values as floats again; an empty list where there is no file."""
    path, restored = Path(run_dir) / METRICS, {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [{k: restored.get(v, v) if isinstance(v, str) and k != "stage" else v for k, v in x.items()} for x in lines]
