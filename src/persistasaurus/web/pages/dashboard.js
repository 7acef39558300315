// Keys, copying, and live pages. All pages work without it.
const page = document.body;
// A dialog that was closed just now may still have the focus.
const typing = (target) => target.closest("input, select, textarea, [contenteditable], dialog[open]");

// Keys: / j k ? and g with a letter; Enter is the focused link's own.
let afterG = 0;

function move(by) {
  const items = [...document.querySelectorAll("a[data-item]")];
  const at = items.indexOf(document.activeElement);
  const next = items[at < 0 ? 0 : Math.min(Math.max(at + by, 0), items.length - 1)];
  next?.focus();
}

const keys = {
  "/": () => document.querySelector("[data-filter]")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  "?": () => document.getElementById("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const wentG = Date.now() - afterG < 1500;
  afterG = 0;
  if (wentG) {
    const link = document.querySelector(`nav a[data-go="${CSS.escape(event.key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  if (event.key === "g") afterG = Date.now();
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

const helpButton = document.getElementById("help-button");
helpButton.hidden = false;
helpButton.addEventListener("click", keys["?"]);

// Copying.
function showCopies(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
});

// Times: how long ago is said anew every few seconds.
const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function ago(iso) {
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  const whole = Math.floor(Math.abs(seconds));
  const [size, unit] = units.find(([size]) => whole >= size) ?? [1, ""];
  if (!unit) return "just now";
  const told = `${Math.floor(whole / size)} ${unit}`;
  return seconds > 0 ? `${told} ago` : `in ${told}`;
}

setInterval(() => {
  for (const told of document.querySelectorAll("time [data-ago]")) {
    told.textContent = ago(told.closest("time").dateTime);
  }
}, 5000);

// Live pages: an event says that something changed, the page is fetched again, and its live parts are replaced.
function keepOpen(old, fresh) {
  for (const details of old.querySelectorAll("details[id][open]")) {
    const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
    if (same) same.open = true;
  }
}

function replace(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.dataset.key !== undefined && old.dataset.key === fresh.dataset.key) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  keepOpen(old, fresh);
  old.replaceWith(fresh);
  showCopies(fresh);
  if (focused) document.getElementById(focused)?.focus();
}

function replaceRows(old, fresh) {
  // A row that the search no longer finds stays where it stands.
  for (const row of old.children) {
    row.classList.toggle("gone", !fresh.querySelector(`#${CSS.escape(row.id)}`));
  }
  for (const row of [...fresh.children]) {
    const known = row.id && document.getElementById(row.id);
    if (known) replace(known, row);
  }
}

async function refresh() {
  const answer = await fetch(page.dataset.refresh || location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fetched = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const fresh of fetched.querySelectorAll("[data-live][id]")) {
    const old = document.getElementById(fresh.id);
    if (old && fresh.dataset.live === "rows") replaceRows(old, fresh);
    else if (old) replace(old, fresh);
  }
}

let refreshing = null;
let again = false;

async function refreshOnce() {
  again = true;
  if (refreshing) return;
  refreshing = true;
  while (again) {
    again = false;
    // A server that is being restarted is asked again when its stream is back.
    await refresh().catch(() => {});
  }
  refreshing = null;
}

let stream = null;
let lost = 0;
const live = document.getElementById("live");

function listen() {
  if (!page.dataset.events || stream) return;
  stream = new EventSource(page.dataset.events);
  stream.addEventListener("open", () => {
    clearTimeout(lost);
    say("Live");
  });
  // A stream ends now and then, and is back at once: only what lasts is worth a word.
  stream.addEventListener("error", () => {
    clearTimeout(lost);
    lost = setTimeout(say, 4000, "Not connected");
  });
  stream.addEventListener("change", refreshOnce);
  stream.addEventListener("end", () => {
    quiet();
    say("");
    refreshOnce();
  });
}

function say(word) {
  if (live.textContent !== word) live.textContent = word;
}

function quiet() {
  clearTimeout(lost);
  stream?.close();
  stream = null;
}

showCopies(document);
listen();
// A browser has six connections to a server: pages that nobody sees take none.
document.addEventListener("visibilitychange", () => (document.hidden ? quiet() : listen()));
addEventListener("pagehide", quiet);
addEventListener("pageshow", (event) => event.persisted && listen());
