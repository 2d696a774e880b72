// The little that the page does without its server: copy a run's link.
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy-link");
  if (!button) return;
  const link = button.parentElement.querySelector("a.job-link");
  await navigator.clipboard?.writeText(link.href);
  button.textContent = "copied";
});

// What is clicked before the server knows the visitor waits until it does: it would change a session that is put in
// place only then, over what the click has made of it.
let early = new Set();
document.addEventListener("click", (event) => {
  const button = early && event.target.closest("button.lg, button.sm");
  if (!button) return;
  event.stopImmediatePropagation();
  early.add(button);
}, true);
function cameIn() {
  const clicked = early ?? [];
  early = null;
  for (const button of clicked) button.click();
}

// Gradio's client has a stream of answers, which its server ends whenever nothing is left to answer. What is asked before
// the news of that arrives would wait for a stream that nobody opens. So the client has one stream that never ends, fed by
// those of the server.
const plainFetch = window.fetch, encoder = new TextEncoder();
const asked = new Set(), answered = new Set();  // events by their ids: still to be answered; answered before we knew of them
const LOST = JSON.stringify({msg: "broken_connection", message: "The connection to the server was lost."});
let feed = () => {};

window.fetch = async (resource, options) => {
  const path = new URL(resource.url ?? resource, location.href).pathname;
  if (path.endsWith("/queue/data")) return endless(resource);
  const answer = await plainFetch(resource, options);
  if (answer.ok && path.endsWith("/queue/join")) {
    const {event_id} = await answer.clone().json();
    if (!answered.delete(event_id)) asked.add(event_id);
    feed();
  }
  return answer;
};

// An answer to the client's request for a stream, in which all that it asks from now on is answered.
function endless(request) {
  let feeding = false;
  const body = new ReadableStream({start(client) {
    const give = (message) => client.enqueue(encoder.encode(`data: ${message}\n\n`));
    feed = async () => {
      if (feeding) return;
      feeding = true;
      try {
        while (asked.size) await pass(await plainFetch(request), give);
      } catch {
        asked.clear();
        if (!request.signal.aborted) give(LOST);  // else the visitor leaves
      }
      feeding = false;
    };
    feed();
  }});
  return new Response(body, {headers: {"Content-Type": "text/event-stream"}});
}

// Gives all messages of one stream of the server but its last, which says that it ends.
async function pass(stream, give) {
  const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", closed = false;
  for (let part; !(part = await reader.read()).done; ) {
    const messages = (text + part.value).split("\n\n");
    text = messages.pop();
    for (const message of messages.map((line) => line.replace(/^data: /, ""))) {
      const {msg, event_id} = JSON.parse(message);
      if (msg === "process_completed" && !asked.delete(event_id)) answered.add(event_id);
      if (msg === "close_stream") closed = true; else give(message);
    }
  }
  if (!closed) throw new Error("The stream was cut off.");
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
