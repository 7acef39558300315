// Draws the numbers of a page's table as lines, and again whenever that table is replaced.
const box = document.getElementById("chart");
const tones = ["--calm", "--good", "--wait", "--bad", "--none"];
const dashes = [[], [6, 3], [2, 3]];
let drawn = null;

function tone(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(label) {
  return { label, stroke: tone("--text"), grid: { stroke: tone("--line") }, ticks: { stroke: tone("--line") } };
}

function lines(series) {
  return series.map(({ label }, at) => ({
    label,
    stroke: tone(tones[at % tones.length]),
    dash: dashes[Math.floor(at / tones.length) % dashes.length],
    width: 2,
    spanGaps: true,
  }));
}

async function draw() {
  const answer = await fetch(box.dataset.source);
  if (!answer.ok) return;
  const { unit, times, series } = await answer.json();
  const values = [times, ...series.map((one) => one.values)];
  if (drawn && drawn.series.length === values.length) {
    drawn.setData(values);
    return;
  }
  drawn?.destroy();
  const size = { width: box.clientWidth, height: 280 };
  drawn = new window.uPlot({ ...size, series: [{}, ...lines(series)], axes: [axis(""), axis(unit)] }, values, box);
}

function redraw() {
  drawn?.destroy();
  drawn = null;
  draw();
}

new MutationObserver(draw).observe(document.getElementById("content"), { childList: true });
addEventListener("resize", () => drawn?.setSize({ width: box.clientWidth, height: 280 }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
draw();
