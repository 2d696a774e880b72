// The word goes into the review and out of it, and the answer turns with it; once by itself, so that nobody need press.
const put = element.querySelector(".put");

function turn() {
  const within = put.getAttribute("aria-pressed") !== "true";
  put.setAttribute("aria-pressed", within);
  for (const [part, shown] of [[".word", within], [".with", within], [".out", within], [".without", !within], [".in", !within]])
    element.querySelector(part).hidden = !shown;
}

const first = setTimeout(turn, 1500);
put.addEventListener("click", () => {
  clearTimeout(first);
  turn();
});
