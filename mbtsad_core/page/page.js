// The little that the page does without its server: copy a run's link.
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy-link");
  if (!button) return;
  const link = button.parentElement.querySelector("a.job-link");
  await navigator.clipboard?.writeText(link.href);
  button.textContent = "copied";
});

// Gradio's client lets an open stream of answers carry that to a new question too. The server may have ended the stream
// just before, and the news of it be on its way: the answer would wait for ever for the next stream. So the client hears
// that its question was taken once the stream speaks of it, or no stream is open.
const plainFetch = window.fetch;
const spokenOf = new Set(), waiting = new Set();  // events by their ids; who waits to hear of one
let streams = 0;

window.fetch = async (resource, options) => {
  const path = new URL(resource.url ?? resource, location.href).pathname;
  if (path.endsWith("/queue/data")) return followed(resource, options);
  const answer = await plainFetch(resource, options);
  if (answer.ok && path.endsWith("/queue/join")) await heardOf((await answer.clone().json()).event_id);
  return answer;
};

// A stream of answers, in which each event that it speaks of is noted on the way.
async function followed(resource, options) {
  streams++;
  try {
    const answer = await plainFetch(resource, options), [ours, theirs] = answer.body.tee();
    follow(ours.pipeThrough(new TextDecoderStream()).getReader()).catch(() => {}).finally(ended);  // it is aborted in the end
    return new Response(theirs, answer);
  } catch (error) {
    ended();
    throw error;
  }
}

async function follow(reader) {
  let line = "";
  for (let part; !(part = await reader.read()).done; ) {
    line += part.value;
    if (!part.value.includes("\n")) continue;
    for (const [, event] of line.matchAll(/"event_id":\s*"(\w+)"/g)) spokenOf.add(event);
    line = line.slice(line.lastIndexOf("\n") + 1);
    waiting.forEach((look) => look());
  }
}

function ended() {
  streams--;
  waiting.forEach((look) => look());
}

// Resolves once a stream has spoken of the event, or none is open.
function heardOf(event) {
  return new Promise((resolve) => {
    const look = () => {
      if (streams && !spokenOf.has(event)) return;
      waiting.delete(look);
      resolve();
    };
    waiting.add(look);
    look();
  });
}

// The arrow keys move along a row of tabs, as readers of tablists expect; Gradio's have Tab and Enter only.
document.addEventListener("keydown", (event) => {
  const by = {ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1}[event.key];
  const row = by && event.target.matches?.("[role=tab]") && event.target.closest("[role=tablist]");
  if (!row) return;
  event.preventDefault();
  const tabs = [...row.querySelectorAll("[role=tab]")].filter((tab) => tab.checkVisibility());
  tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length].focus();
});

// The step stands in the address, so that Back, reload and a link bring it back.
const stepOf = () => document.querySelector("#steps > .tab-wrapper [role=tab][aria-selected=true]")?.id.match(/^step-(\w+)-button$/)?.[1];

function nameStep() {
  const step = stepOf(), url = new URL(location.href), before = url.searchParams.get("step");
  if (!step || step === (before || "suspect")) return;
  url.searchParams.set("step", step);
  history.pushState(null, "", url);
}

window.addEventListener("popstate", () => {
  const step = new URL(location.href).searchParams.get("step") || "suspect";
  if (step !== stepOf()) document.getElementById(`step-${step}-button`)?.click();
});
new MutationObserver(nameStep).observe(document.documentElement, {subtree: true, attributeFilter: ["aria-selected"]});

// What was chosen holds in this browser. Gradio takes the theme from the address, before this script is there.
function keepTheme(dark) {
  localStorage.setItem("mbtsad-theme", dark ? "dark" : "light");
  putTheme();
}
function putTheme() {
  const theme = localStorage.getItem("mbtsad-theme"), url = new URL(location.href);
  if (theme) document.body?.classList.toggle("dark", theme === "dark");
  if (!theme || url.searchParams.get("__theme") === theme) return;
  url.searchParams.set("__theme", theme);
  history.replaceState(null, "", url);
}
putTheme();

// Large type, to be read from afar: the address keeps it.
function keepPresenting(on) {
  const url = new URL(location.href);
  if (on) url.searchParams.set("present", "1"); else url.searchParams.delete("present");
  history.replaceState(null, "", url);
  putPresenting();
}
function putPresenting() {
  const on = new URL(location.href).searchParams.has("present");
  document.body.classList.toggle("present", on);
  document.getElementById("present")?.setAttribute("aria-pressed", on);
}
window.addEventListener("popstate", putPresenting);

// Past strip and rail, to what the step shows.
document.addEventListener("click", (event) => {
  if (!event.target.closest("a.skip")) return;
  event.preventDefault();
  const shown = [...document.querySelectorAll("#steps > .tabitem")].find((panel) => panel.checkVisibility());
  shown.tabIndex = -1;
  shown.focus();
});
