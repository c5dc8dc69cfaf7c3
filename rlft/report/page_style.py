"""The style sheet of report.html: light and dark by the reader's setting, nothing fetched."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --ink: #23292f; --muted: #69737d; --grid: #dfe3e7; --paper: #fbfbfa; --card: #ffffff;
  --before: #8a97a6; --after: #0e7c74; --accent: #c4812b; --bad: #b3423a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e6ea; --muted: #98a2ac; --grid: #343b43; --paper: #14181c;
  --card: #1b2026; --before: #8896a6; --after: #45b8ad; --accent: #dba354; --bad: #e0827a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 0.8rem; padding-top: 0.9rem; border-top: 1px solid var(--grid); }
p { max-width: 46rem; margin: 0.5rem 0; }
.muted, figcaption, caption { color: var(--muted); font-size: 0.9rem; }
.warning { border-left: 3px solid var(--accent); padding: 0.3rem 0.9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 0.8rem; margin: 1.4rem 0 0; }
.tile { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 0.7rem 0.95rem; }
.tile b { display: block; font-size: 1.55rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 0.85rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem; align-items: start; }
.grid > * { min-width: 0; overflow-x: auto; }
figure { margin: 0; }
svg { width: 100%; height: auto; display: block; color: var(--ink); }
video, img { width: 100%; height: auto; display: block; border-radius: 6px; background: #808080; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.6rem 0; }
th, td { text-align: left; padding: 0.28rem 1.4rem 0.28rem 0; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
th { font-weight: 500; color: var(--muted); }
td.number { text-align: right; }
caption { text-align: left; padding-bottom: 0.3rem; }
pre { background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 0.8rem 1rem;
  overflow-x: auto; font: 0.82rem/1.5 ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace; }
details > summary { cursor: pointer; color: var(--muted); }
.success { color: var(--after); } .failure { color: var(--bad); }
"""
