"""How the page looks and the little that moves on it: one style sheet, light and dark, and one script that sorts and searches a table.

Text only. The page is one file that asks nothing of the network: no font, no library.
"""

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--paper:#fcfcfa;--card:#fff;--ink:#1b1f24;--soft:#626b76;--rule:#e3e4e0;--grid:#ecece8;
--served:#0b7a6b;--good:#0b7a6b;--bad:#c2410c;--tint-good:#0b7a6b1f;--tint-bad:#c2410c24;--r1:#c77700;--r2:#6d5bd0;--r3:#2b7fc4;--r4:#8a9099;
--r5:#b0447e;--fan:#0b7a6b;--shade:#f3f4f0}
@media(prefers-color-scheme:dark){:root{--paper:#0f1215;--card:#161a1f;--ink:#e8eaed;--soft:#97a1ad;--rule:#2a3037;--grid:#232930;
--served:#3cc4ae;--good:#3cc4ae;--bad:#f58a55;--tint-good:#3cc4ae26;--tint-bad:#f58a5530;--r1:#f0b04a;--r2:#a99bf5;--r3:#6cb4ee;--r4:#8a939e;
--r5:#e48bb9;--fan:#3cc4ae;--shade:#1c2127}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:1120px;margin:0 auto;padding:2.2rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .35rem;letter-spacing:-.015em}
h2{font-size:1.22rem;margin:0 0 .2rem;letter-spacing:-.01em}
h3{font-size:.92rem;font-weight:600;margin:0 0 .3rem}
p{margin:.25rem 0 .9rem;max-width:74ch}
.soft,figcaption,nav{color:var(--soft)}
.lead{font-size:1.12rem;line-height:1.5;margin:1rem 0 1.3rem;max-width:68ch}
nav{font-size:.9rem;margin:1.4rem 0 0;padding:.55rem 0;border-top:1px solid var(--rule);border-bottom:1px solid var(--rule);display:flex;
flex-wrap:wrap;gap:.2rem 1.1rem}
nav a{color:inherit;text-decoration:none}nav a:hover{color:var(--ink);text-decoration:underline}
section{padding-top:2.4rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(185px,1fr));gap:.8rem}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.85rem 1rem}
.tile b{display:block;
font-size:1.75rem;line-height:1.15;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums;margin:.1rem 0}
.tile span{display:block;font-size:.86rem;color:var(--soft)}
.tile .name{color:var(--ink)}
.good{color:var(--good)}.bad{color:var(--bad)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(290px,1fr));gap:.8rem;margin:.6rem 0}
.four svg text{font-size:13px}
.grid.four{grid-template-columns:repeat(auto-fit,minmax(245px,1fr))}
.grid.wide{grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.75rem .8rem .5rem;min-width:0}
figcaption{font-size:.82rem;padding:.1rem 0 .2rem}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font:11px system-ui,sans-serif;fill:var(--soft);font-variant-numeric:tabular-nums}
path.rule,path.zero{stroke:var(--grid);stroke-width:1;fill:none}path.zero{stroke:var(--soft);stroke-opacity:.65}
.line{fill:none;stroke:var(--soft);stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}
.thin{stroke-width:1.1;stroke-opacity:.55}.dash{stroke-dasharray:4 4;stroke-width:1.1}
.line.served{stroke:var(--served)}.line.ink{stroke:var(--ink);stroke-width:1.4}
.line.r1{stroke:var(--r1)}.line.r2{stroke:var(--r2)}.line.r3{stroke:var(--r3)}.line.r4{stroke:var(--r4)}.line.r5{stroke:var(--r5)}
.dot{fill:var(--soft)}.dot.served{fill:var(--served)}.dot.coin{fill:var(--served);fill-opacity:.6}.dot.off{fill:var(--bad);fill-opacity:.8}
.dot.r1{fill:var(--r1)}.dot.r2{fill:var(--r2)}.dot.r3{fill:var(--r3)}.dot.r4{fill:var(--r4)}.dot.r5{fill:var(--r5)}
.bar{fill:var(--soft)}.bar.good{fill:var(--good)}.bar.bad{fill:var(--bad)}.bar.served{fill:var(--served);fill-opacity:.75}
.area{stroke:none;fill:var(--soft)}.area.within{fill:var(--good);fill-opacity:.1}
.area.fan95{fill:var(--fan);fill-opacity:.13}.area.fan80{fill:var(--fan);fill-opacity:.2}.area.fan50{fill:var(--fan);fill-opacity:.3}
.area.served{fill:var(--served);fill-opacity:.75}.area.r1{fill:var(--r1)}.area.r2{fill:var(--r2)}.area.r3{fill:var(--r3)}
.area.r4{fill:var(--r4)}.area.r5{fill:var(--r5)}.area:not(.served):not(.within):not([class*=fan]){fill-opacity:.75}
.keys{display:flex;flex-wrap:wrap;gap:.1rem .9rem;font-size:.84rem;color:var(--soft);margin:.1rem 0 .4rem;padding:0;list-style:none}
.keys i{display:inline-block;width:.85rem;height:.25rem;border-radius:2px;margin-right:.35rem;vertical-align:middle;background:var(--soft)}
.keys .served i{background:var(--served)}.keys .r1 i{background:var(--r1)}.keys .r2 i{background:var(--r2)}.keys .r3 i{background:var(--r3)}
.keys .r4 i{background:var(--r4)}.keys .r5 i{background:var(--r5)}.keys .ink i{background:var(--ink)}.keys .good i{background:var(--good)}
.keys .bad i{background:var(--bad)}.keys .fan i{height:.7rem;background:var(--fan);opacity:.5}
.scroll{overflow:auto;background:var(--card);border:1px solid var(--rule);border-radius:10px;margin:.6rem 0}
.scroll.tall{max-height:34rem}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.36rem .62rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
tr:last-child td{border-bottom:0}
th{font-weight:600;color:var(--soft);background:var(--card);position:sticky;top:0;z-index:1}
th:first-child,td:first-child,.left{text-align:left}
td:first-child{font-weight:550}
th:first-child,td:first-child{position:sticky;left:0;background:var(--card)}th:first-child{z-index:2}
th.left{text-align:left}td.wrap{white-space:normal;min-width:18rem;text-align:left}
td.best{font-weight:650}
td.near{background:var(--tint-good)}td.far{background:var(--tint-bad)}
th[data-sort]{cursor:pointer;user-select:none}th[data-sort]:hover{color:var(--ink)}
th[aria-sort=ascending]::after{content:" \\2191"}th[aria-sort=descending]::after{content:" \\2193"}
input[type=search]{font:inherit;color:inherit;background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:.4rem .7rem;
width:min(100%,17rem)}
.pill{display:inline-block;border-radius:99px;padding:0 .55rem;font-size:.8rem;background:var(--shade);color:var(--soft)}
.pill.good{background:var(--tint-good);color:var(--good)}.pill.bad{background:var(--tint-bad);color:var(--bad)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:.82rem/1.5 ui-monospace,Menlo,Consolas,monospace;background:var(--shade);
border-radius:8px;padding:.8rem;margin:.5rem 0}
summary{cursor:pointer;color:var(--soft);font-size:.92rem}
footer{margin-top:3rem;color:var(--soft);font-size:.86rem;border-top:1px solid var(--rule);padding-top:.8rem}
@media(max-width:560px){svg.wide text{font-size:15px}main{padding:1.3rem .8rem 3rem}h1{font-size:1.4rem}
.lead{font-size:1.03rem}.tiles{grid-template-columns:1fr 1fr;gap:.55rem}
.tile{padding:.65rem .75rem}.tile b{font-size:1.35rem}.tile span{font-size:.8rem}th,td{padding:.32rem .5rem}nav{gap:.15rem .8rem}}
@media print{.scroll.tall{max-height:none}input{display:none}}
"""

CARDS_STYLE: Final = """
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));gap:.8rem}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:.7rem .8rem .55rem;min-width:0;
content-visibility:auto;contain-intrinsic-size:auto 345px}
.card[hidden]{display:none}
.card h3{font-size:1rem;margin:0}.card p{margin:.1rem 0 .25rem;font-size:.86rem;color:var(--soft)}
.card .quote b{font-size:1.2rem;color:var(--ink);font-variant-numeric:tabular-nums}
.card table{width:100%;font-size:.84rem;margin:.25rem 0}.card th{text-align:left;font-weight:500;color:var(--soft)}
.card td{text-align:right}.card td,.card th{padding:.08rem 0;border:0}
.tools{display:flex;flex-wrap:wrap;gap:.5rem .9rem;align-items:center;max-width:none}
select{font:inherit;color:inherit;background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:.38rem .5rem}
.facts th,.facts td{text-align:left;white-space:normal}
.conditions{list-style:none;padding:0}.conditions li{margin:.3rem 0}
"""

CARDS_SCRIPT: Final = """
{
  const cards = [...document.querySelectorAll('.card')], box = document.getElementById('cards');
  const search = document.getElementById('card-search'), order = document.getElementById('card-sort');
  const count = document.getElementById('card-count');
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const card of cards) card.hidden = !card.dataset.name.toLowerCase().includes(wanted);
    const shown = cards.filter(card => !card.hidden).length;
    count.textContent = shown === cards.length ? `${shown} coins` : `${shown} of ${cards.length} coins`;
  };
  const sort = () => {
    const key = order.value, value = card => Number(card.dataset[key] ?? -Infinity);
    cards.sort((a, b) => key === 'name' ? (a.dataset.name < b.dataset.name ? -1 : 1) : value(b) - value(a));
    box.append(...cards);
  };
  if (box) {
    search.addEventListener('input', filter);
    order.addEventListener('change', sort);
    filter();
  }
}
"""

SCRIPT: Final = """
for (const table of document.querySelectorAll('table.sortable')) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent;
  heads.forEach((head, i) => {
    head.dataset.sort = ''; head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute('aria-sort') !== 'descending' && (i > 0 || head.getAttribute('aria-sort') === 'ascending');
      heads.forEach(other => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a, i), y = value(b, i);
        if (i === 0) return x < y ? -1 : x > y ? 1 : 0;
        if (x === '' || y === '') return x === y ? 0 : x === '' ? (down ? -1 : 1) : (down ? 1 : -1);
        return Number(x) - Number(y);
      });
      body.append(...(down ? rows.reverse() : rows));
    };
    head.addEventListener('click', sort);
    head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(); });
  });
}
for (const field of document.querySelectorAll('input[data-search]')) {
  const rows = document.getElementById(field.dataset.search).tBodies[0].rows;
  field.addEventListener('input', () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
  });
}
"""
