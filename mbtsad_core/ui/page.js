// The little that the page does without its server: copy a run's link.
document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy-link");
  if (!button) return;
  const link = button.parentElement.querySelector("a.job-link");
  await navigator.clipboard?.writeText(link.href);
  button.textContent = "copied";
});
