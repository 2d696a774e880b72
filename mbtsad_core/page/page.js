// The little that the page does without its server: copy a run's link.
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy-link");
  if (!button) return;
  const link = button.parentElement.querySelector("a.job-link");
  await navigator.clipboard?.writeText(link.href);
  button.textContent = "copied";
});

// The arrow keys move along a row of tabs, as readers of tablists expect; Gradio's have Tab and Enter only.
document.addEventListener("keydown", (event) => {
  const by = {ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1}[event.key];
  const row = by && event.target.matches?.("[role=tab]") && event.target.closest("[role=tablist]");
  if (!row) return;
  event.preventDefault();
  const tabs = [...row.querySelectorAll("[role=tab]")].filter((tab) => tab.checkVisibility());
  tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length].focus();
});
