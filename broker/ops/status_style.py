"""How the status page looks: one column on a phone, two on a screen, dark where that is wished."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; font: 100%/1.45 system-ui, sans-serif;
  --page: #f4f5f7; --card: #fff; --text: #1b1f24; --quiet: #5a636e; --line: #d8dce1;
  --good: #1a7f37; --bad: #c21d2b; --worse: #8a5a00;
  --rotated: #2da44e; --refused: #d1242f; --unanswered: #bf8700; --client: #8250df;
  --other: #8c959f; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0d1117; --card: #161b22; --text: #e6edf3; --quiet: #9aa4af; --line: #30363d;
  --good: #56d364; --bad: #ff7b72; --worse: #e3b341;
  --rotated: #3fb950; --refused: #f85149; --unanswered: #d29922; --client: #a371f7;
  --other: #6e7681; } }
* { box-sizing: border-box; }
body { background: var(--page); color: var(--text); margin: 0 auto; max-width: 64rem;
  padding: .75rem; }
header { background: var(--card); border: 1px solid var(--line); border-left: .5rem solid;
  border-radius: .5rem; padding: .75rem 1rem; }
header p { color: var(--quiet); margin: 0; }
header .deed { color: var(--text); margin-top: .5rem; }
header.good { border-left-color: var(--good); }
header.worse { border-left-color: var(--worse); }
header.bad { border-left-color: var(--bad); }
h1 { font-size: 1.5rem; line-height: 1.2; margin: .25rem 0 .5rem; }
h2 { align-items: baseline; display: flex; flex-wrap: wrap; font-size: 1rem; gap: 0 .5rem;
  justify-content: space-between; margin: 0 0 .5rem; }
h2 small { font-weight: normal; }
small { color: var(--quiet); font-size: .85rem; }
dd small, p small, td small { display: block; white-space: normal; }
.warning { color: var(--bad); }
.quiet { color: var(--quiet); }
ul { list-style: none; margin: 0; padding: 0; }
.further { color: var(--bad); font-weight: 600; margin-bottom: .5rem; }
.abilities, .legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
main { display: grid; gap: .75rem; margin: .75rem 0; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  min-width: 0; padding: .75rem 1rem; }
section p { margin: .25rem 0; }
dl { display: grid; gap: .3rem 1rem; grid-template-columns: 1fr auto; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; text-align: right; }
.light { font-weight: 600; }
.light::before { content: "\\25CF\\00A0"; }
.light.good { color: var(--good); }
.light.bad { color: var(--bad); }
.light.bad::before { content: "\\25B2\\00A0"; }
figure { margin: 0; }
svg { display: block; height: 8rem; width: 100%; }
.grid { fill: none; stroke: var(--line); vector-effect: non-scaling-stroke; }
figcaption { color: var(--quiet); display: flex; font-size: .85rem; gap: .5rem;
  justify-content: space-between; }
.legend { margin-top: .5rem; }
i { border-radius: .15rem; display: inline-block; height: .75rem; margin-right: .35rem;
  width: .75rem; }
i.rotated { background: var(--rotated); } rect.rotated { fill: var(--rotated); }
i.refused { background: var(--refused); } rect.refused { fill: var(--refused); }
i.unanswered { background: var(--unanswered); } rect.unanswered { fill: var(--unanswered); }
i.client_refused { background: var(--client); } rect.client_refused { fill: var(--client); }
i.other { background: var(--other); } rect.other { fill: var(--other); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { color: var(--quiet); font-size: .85rem; font-weight: normal; text-align: left; }
td, th { padding: .3rem .6rem .3rem 0; vertical-align: top; }
td { border-top: 1px solid var(--line); white-space: nowrap; }
.name { display: inline-block; min-width: 9rem; overflow-wrap: anywhere; white-space: normal; }
footer .name { display: inline; }
.detail { display: none; }
code { font-size: .9em; }
footer { color: var(--quiet); font-size: .85rem; }
@media (min-width: 48rem) {
  main { grid-template-columns: 1fr 1fr; }
  main { align-items: start; }
  section:first-child { grid-row: span 3; align-self: stretch; }
  .wide { grid-column: 1 / -1; }
  .detail { display: table-cell; }
  td small { display: inline; margin-left: .4rem; white-space: nowrap; } }
"""
