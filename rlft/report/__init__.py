"""A run directory, read and shown: summary.json, report.png and report.html. Importing it loads no matplotlib."""

from rlft.report.build import ReportPaths, build_report
from rlft.report.evalfiles import RunFileError
from rlft.report.video import VideoError

__all__ = ["ReportPaths", "RunFileError", "VideoError", "build_report"]
