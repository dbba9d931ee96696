"""A page that needs nothing else: its head, its colours, and what is drawn on it. Pure."""

from __future__ import annotations

from ..timeline import Timeline
from .chart import timeline_figure
from .words import safe

STYLE = """
:root{color-scheme:light dark;--page:#fff;--panel:#f6f8fa;--text:#1f2328;--quiet:#59636e;
--line:#d1d9e0;--prepare:#8250df;--wait:#eaeef2;--queue:#b8c1cc;--load:#2869c4;--on-load:#fff;
--warm:#84b6f4;--failed:#cf222e;--overdue:#c77700;--abandoned:#a0662c;--gap:#bf3989;--cold:#2869c4;
--hot:#c2570c}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--panel:#151b23;--text:#e6edf3;
--quiet:#9198a1;--line:#2f3742;--prepare:#a371f7;--wait:#262d36;--queue:#4a535f;--load:#5a9bf5;
--on-load:#0b1a30;--warm:#24568f;--failed:#f2564d;--overdue:#dba024;--abandoned:#b5814b;
--gap:#e275ad;--cold:#6ba6f7;--hot:#f0883e}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem clamp(.75rem,3vw,2.5rem) 4rem;max-width:100rem;
background:var(--page);color:var(--text);font:15px/1.5 system-ui,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;margin:.2rem 0 .3rem;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.4rem 0 .5rem}h3{font-size:1rem;margin:1.6rem 0 .4rem}
p{max-width:48rem;margin:.4rem 0}.quiet,figcaption{color:var(--quiet)}
figcaption{max-width:60rem;margin-bottom:.7rem;overflow-wrap:anywhere}
figure{margin:0}.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;
background:var(--panel)}
.chart{position:relative;min-width:44rem;padding:2rem 1rem .7rem 0}
.lane{display:flex;align-items:center;position:relative}
.name{flex:none;width:8.5rem;padding:0 .7rem;font-size:.8rem;color:var(--quiet);
white-space:nowrap;overflow:hidden;text-overflow:ellipsis;text-align:right;position:sticky;left:0;
z-index:4;background:var(--panel)}
.track{position:relative;flex:1;height:1.75rem}
.track>i{position:absolute;top:2px;bottom:2px;min-width:1.5px;border-radius:3px;overflow:hidden;
display:block;font-style:normal;border-right:1px solid var(--panel)}
.track>i:hover{outline:2px solid var(--text);z-index:3}
.track b{display:block;padding:0 .4rem;font:500 .75rem/1.5rem system-ui,sans-serif;
color:var(--on-load);white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.track>i.in1{top:30%;z-index:1}.track>i.in2{top:50%;z-index:1}.track>i.in3{top:65%;z-index:1}
.track>i.in1,.track>i.in2,.track>i.in3{border:1px solid var(--panel)}
.in1 b,.in2 b,.in3 b{line-height:1rem;font-size:.65rem}
.thin .track{height:.8rem}.thin .track>i{top:1px;bottom:1px;border-radius:1px}
.thin .name{font-size:.65rem;line-height:.8rem}
.prepare{background:var(--prepare)}.wait{background:var(--wait)}.queue{background:var(--queue)}
.load{background:var(--load)}.gap{background:var(--gap)}
.warm-up{background:var(--warm)}
.failed{background:repeating-linear-gradient(45deg,var(--failed) 0 5px,
color-mix(in srgb,var(--failed) 72%,var(--panel)) 5px 10px)}
.failed b{color:#fff}
.overdue{background:var(--overdue)}
.abandoned{background:repeating-linear-gradient(-45deg,var(--abandoned) 0 3px,transparent 3px 7px);
outline:1px dashed var(--abandoned);outline-offset:-1px}
.abandoned b{color:var(--text);display:inline-block;background:var(--panel);max-width:100%}
.track>i.open{border-right:3px double var(--text);border-top-right-radius:0;
border-bottom-right-radius:0}
.gaps .track{height:1.2rem}.queued .track{height:2.4rem;border-bottom:1px solid var(--line)}
.queued svg{position:absolute;inset:0;width:100%;height:100%}.queued path{fill:var(--queue)}
.grid{position:absolute;inset:0 1rem 0 8.5rem}.grid>div{position:relative;height:100%}
.grid i{position:absolute;top:1.6rem;bottom:.4rem;width:1px;background:var(--line)}
.grid b{position:absolute;top:-1.3rem;transform:translateX(-50%);font:.75rem system-ui,sans-serif;
color:var(--quiet);white-space:nowrap}
.grid i:first-child b{transform:none}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;list-style:none;margin:.7rem 0 0;padding:0;
font-size:.85rem;color:var(--quiet)}
.legend li{display:flex;align-items:center;gap:.45rem}
.legend i{width:1.2rem;height:.8rem;border-radius:3px;flex:none}
details{margin-top:1rem}summary{cursor:pointer;color:var(--quiet);margin-bottom:.5rem}
table{border-collapse:collapse;width:100%;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--quiet);font-weight:500;vertical-align:bottom}
th:first-child{text-align:left;max-width:16rem;overflow:hidden;text-overflow:ellipsis;
position:sticky;left:0;z-index:4;background:var(--panel)}
tbody th{font-weight:500}.loads td:last-child,.loads thead th:last-child{text-align:left}
.wide{width:40%;min-width:16rem}thead .wide{text-align:left}
.loads td{padding-top:.15rem;padding-bottom:.15rem}.loads .track{height:1.1rem}
.wrong{color:var(--failed);font-weight:600}
.told{border-left:4px solid var(--load);background:var(--panel);padding:.7rem 1rem;
border-radius:0 8px 8px 0;max-width:60rem}.told p{max-width:none}
.strip .track{height:1.6rem}.strip .chart{min-width:36rem}.strip .name{width:12rem}
.strip .grid{left:12rem}
.track>u{position:absolute;top:50%;width:9px;height:9px;margin:-4.5px 0 0 -4.5px;
border-radius:50%;opacity:.6}
.track>s{position:absolute;top:18%;bottom:18%;width:3px;margin-left:-1.5px;border-radius:2px}
.cold{background:var(--cold)}.warm{background:var(--hot)}.first{background:var(--prepare)}
.ideal{background:repeating-linear-gradient(90deg,var(--quiet) 0 4px,transparent 4px 7px)}
.track>s.ideal{top:0;bottom:0;width:2px;border-radius:0;background:repeating-linear-gradient(
var(--ideal) 0 4px,transparent 4px 7px)}
.ideal.cold{--ideal:var(--cold)}.ideal.warm{--ideal:var(--hot)}
.below{margin-top:1rem}
.chosen .name{color:var(--text);font-weight:700}
@media(max-width:40rem){.name{width:6rem;padding:0 .4rem}.grid{left:6rem}body{font-size:14px}
.strip .name{width:8rem}.strip .grid{left:8rem}}
@media print{.scroll{overflow:visible}}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing is fetched and nothing runs, whatever a model is called."""


def page(title: str, body: str) -> str:
    """Return a page.

    Args:
        title: as text.
        body: as HTML.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="generator" content="anyload">'
        f"<title>{safe(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def timeline_page(title: str, timeline: Timeline) -> str:
    """Return the page of one timeline."""
    return page(title, timeline_figure(timeline, title, level=1))
