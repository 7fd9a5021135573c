"""Style sheet of the report page: light and dark by the reader's setting, and one column on narrow screens."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2228; --faint: #5c6670; --ground: #f4f5f6; --card: #ffffff;
  --line: #d9dde1; --good: #00805f; --bad: #c4520a; --plain: #3a78b5; --on: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaed; --faint: #9da7b1; --ground: #14171a; --card: #1e2226;
  --line: #353b42; --good: #2fb98d; --bad: #f0853a; --plain: #6caae6; --on: #101214; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 1rem; padding-top: 1rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.75rem 0 .6rem; }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin-bottom: 1rem; }
a { color: var(--plain); }
.note, figcaption, small { color: var(--faint); font-size: .85rem; }
.note { margin: .5rem 0; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .8rem; text-align: right; white-space: nowrap; vertical-align: top; }
th[scope=row], th[scope=rowgroup], thead th:first-child { text-align: left; }
th[scope=row] { font-weight: 500; }
thead th { color: var(--faint); font-weight: 600; font-size: .85rem; }
tbody tr { border-top: 1px solid var(--line); }
.way { color: var(--faint); font-size: .85rem; padding-top: .8rem; }
td small { display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 290px), 1fr)); gap: 1rem; }
.card { margin: 0; padding: .9rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card h3 { margin: 0 0 .5rem; }
.card p { margin: .3rem 0 .6rem; color: var(--faint); font-size: .9rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.axis { stroke: var(--faint); }
rect.good { fill: var(--good); } rect.bad { fill: var(--bad); } rect.plain { fill: var(--plain); }
.strips { display: grid; gap: 1rem; }
.strips img { display: block; max-width: 100%; height: auto; border-radius: 4px; }
.plot { display: block; width: 100%; max-width: 860px; margin: 0 auto; }
blockquote { margin: 0; font-size: 1.02rem; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: .05rem .55rem; border-radius: 1rem; color: var(--on); font-weight: 600;
  font-size: .82rem; }
.badge.good { background: var(--good); } .badge.bad { background: var(--bad); }
@media (max-width: 600px) { main { padding: 1rem .75rem 3rem; } th, td { padding: .35rem .55rem; } }
@media print { .card { break-inside: avoid; } }
"""
