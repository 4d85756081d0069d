"""What the page of `bnnlight compare` is filled into: style, and the script that draws, sorts and hides."""

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>$plotly</script>
<script type="application/json" id="template">$template</script>
<style>
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1360px; padding: 0 1rem; color: #222; }
h2 { margin: 2.2rem 0 .2rem; } h2 + p { margin: 0 0 .4rem; color: #555; }
h3, summary { font-size: .95rem; font-weight: 600; margin: .6rem 0 .2rem; overflow-wrap: anywhere; }
summary { cursor: pointer; } small { color: #666; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
thead th { cursor: pointer; user-select: none; border-bottom: 2px solid #888; vertical-align: bottom; }
tr > :first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tbody th { font-weight: normal; }
th[data-order="1"]::after { content: " ▲"; } th[data-order="-1"]::after { content: " ▼"; }
tbody tr:hover, tbody tr:hover th { background: #f3f6fa; }
.folded { display: none; } .unfolded .folded { display: table-cell; }
.buttons { display: flex; flex-wrap: wrap; gap: .5rem; }
button { font: inherit; padding: .2rem .7rem; border: 1px solid #999; border-radius: 4px; background: #f6f6f6; }
button { cursor: pointer; }
.run { display: inline-flex; align-items: flex-start; gap: .35rem; cursor: pointer; }
.run span { overflow-wrap: break-word; min-width: 0; } .run input { flex: none; margin: .25em 0 0; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .9rem; max-height: 9rem; overflow-y: auto; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); gap: .5rem 1.2rem; }
.panel { min-width: 0; } .away { display: none; }
.problems { background: #fff4e0; border: 1px solid #e0b060; padding: .6rem 1rem .6rem 2rem; overflow-wrap: anywhere; }
@media (max-width: 600px) {
  body { margin: .8rem auto; padding: 0 .7rem; }
  th, td { padding: .3rem .45rem; } tr > :first-child { max-width: 45vw; white-space: normal; }
}
</style></head><body>
<h1>$title</h1>
<p>Click a column to sort by it. Click a run's name to show or hide its curves.</p>
$body
<script>
const template = JSON.parse(document.getElementById("template").textContent);
const away = new Set();
const plots = [...document.querySelectorAll(".plot")];
const draw = plot => {
  if (plot.drawn) return;
  plot.drawn = true;
  const {data, layout} = JSON.parse(plot.firstChild.textContent);
  plot.replaceChildren();
  data.forEach(trace => trace.visible = !away.has(trace.meta));
  Plotly.newPlot(plot, data, {...layout, template}, {displaylogo: false, responsive: true});
};
// a picture in a closed list has no width to be drawn to
plots.filter(plot => !plot.closest("details:not([open])")).forEach(draw);
document.querySelectorAll("details").forEach(
  details => details.addEventListener("toggle", () => details.open && details.querySelectorAll(".plot").forEach(draw)));

const show = (run, on) => {
  if (on) away.delete(run); else away.add(run);
  document.querySelectorAll(`input[data-run="$${run}"]`).forEach(box => box.checked = on);
  document.querySelectorAll(`[data-of="$${run}"]`).forEach(panel => panel.classList.toggle("away", !on));
};
const redraw = () => plots.filter(plot => plot.drawn).forEach(
  plot => Plotly.restyle(plot, {visible: plot.data.map(trace => !away.has(trace.meta))}));
const runs = [...new Set([...document.querySelectorAll("input[data-run]")].map(box => +box.dataset.run))];
document.querySelectorAll("input[data-run]").forEach(
  box => box.addEventListener("change", () => { show(+box.dataset.run, box.checked); redraw(); }));
for (const [id, on] of [["all", true], ["none", false]])
  document.getElementById(id)?.addEventListener("click", () => { runs.forEach(run => show(run, on)); redraw(); });

const more = document.getElementById("more");
more?.addEventListener("click", () => {
  const on = document.querySelector("table").classList.toggle("unfolded");
  more.setAttribute("aria-expanded", on);
  more.textContent = on ? more.textContent.replace("Show", "Hide") : more.textContent.replace("Hide", "Show");
});

const key = cell => JSON.parse(cell.dataset.sort);
document.querySelectorAll("thead th").forEach((head, column) => head.addEventListener("click", () => {
  const order = head.dataset.order === "1" ? -1 : 1;
  document.querySelectorAll("thead th").forEach(other => delete other.dataset.order);
  head.dataset.order = order;
  const body = document.querySelector("tbody");
  [...body.rows].sort((a, b) => {
    const [x, y] = [key(a.cells[column]), key(b.cells[column])];
    if (x === "" || y === "") return (x === "") - (y === "");
    const numbers = typeof x === "number" && typeof y === "number";
    return order * (numbers ? x - y : String(x).localeCompare(String(y), undefined, {numeric: true}));
  }).forEach(row => body.append(row));
}));
</script></body></html>
""")
