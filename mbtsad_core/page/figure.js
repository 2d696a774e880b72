// Draws props.value, JSON: {figure: {data, layout} as plotly.py writes it, text}, or the reason why there is nothing to draw: {empty}.
const figure = element.querySelector("figure"), plot = element.querySelector(".plot"), caption = element.querySelector("figcaption");

function loaded() { // Plotly's script once for all figures of the page, when the first is drawn
  window.mbtsadPlotly ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = (window.gradio_config?.root || "") + "PLOTLY_ROUTE";
    script.onload = done;
    script.onerror = () => {
      window.mbtsadPlotly = undefined; // the next figure tries again
      failed(new Error("The plots' script could not be loaded. Reload the page."));
    };
    document.head.append(script);
  });
  return window.mbtsadPlotly;
}

function enlarge(part, by) { // all sizes of a layout, of type and of the room for it
  for (const [key, value] of Object.entries(part)) {
    if (value && typeof value === "object") enlarge(value, by);
    else if (typeof value === "number" && ["size", "height", "l", "r", "t", "b", "title_standoff", "yshift"].includes(key)) part[key] = value * by;
  }
}

function themed(own) { // a layout in the colors of the page as it is now
  const style = getComputedStyle(figure), ink = style.getPropertyValue("--ink").trim(), line = style.getPropertyValue("--line").trim();
  own.paper_bgcolor = own.plot_bgcolor = "rgba(0,0,0,0)";
  own.font = {...own.font, color: ink, family: "system-ui, sans-serif"};
  own.hoverlabel = {...own.hoverlabel, bgcolor: style.getPropertyValue("--panel").trim(), bordercolor: line, font: {color: ink}};
  own.modebar = {bgcolor: "rgba(0,0,0,0)", color: line, activecolor: ink};
  for (const key of Object.keys(own)) {
    if (/^[xy]axis/.test(key)) own[key] = {...own[key], gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line};
  }
  if (document.body.classList.contains("present")) enlarge(own, 1.5); // the style sheet draws plots at their own size, so that they find the pointer
  if (figure.clientWidth < 480) {
    own.margin = {...own.margin, l: Math.min(own.margin?.l ?? 44, 44), r: 8};
    const [first, ...rest] = (own.title?.text || "").split(", CACC "); // its two figures do not stand beside each other
    if (rest.length && first) {
      own.title.text = `${first}<br>CACC ${rest.join(", CACC ")}`;
      own.margin.t += 18;
      own.height += 18;
    }
  }
  return own;
}

function say(why) { // instead of a plot
  if (plot.data && !plot._snapshotInProgress) window.Plotly.purge(plot); // a picture that is being saved needs what it would forget
  caption.className = "empty";
  caption.textContent = why;
  plot.hidden = true;
}

let begun = 0, late = false; // draws; whether one waits until the figure is seen: in a step that is not open it costs for nothing
async function draw() {
  const mine = ++begun, {figure: drawn, text, empty} = JSON.parse(props.value); // anew each time: `themed` changes it
  late = Boolean(drawn) && !figure.checkVisibility();
  if (late) return;
  if (!drawn) return say(empty);
  try {
    await loaded();
  } catch (error) {
    return say(error.message);
  }
  if (mine !== begun) return; // a newer one waits for the script too
  plot.hidden = false;
  caption.className = "for-readers";
  caption.textContent = text;
  const controls = {...PLOT_CONTROLS, toImageButtonOptions: {filename: element.id || "mbtsad", scale: 2}};
  await window.Plotly.react(plot, drawn.data, themed(drawn.layout), controls);
  const picture = plot.querySelector(".main-svg"); // not all of the plot: it holds buttons
  picture?.setAttribute("role", "img");
  picture?.setAttribute("aria-label", text);
  if (!plot.listening) {
    plot.listening = true;
    plot.on("plotly_click", ({points}) => {
      const about = points[0].customdata;
      if (Array.isArray(about)) trigger("click", {index: about[0]});
    });
  }
}

new ResizeObserver(() => { if (late) draw(); }).observe(figure); // from no size to one as its step is opened
new MutationObserver(() => { if (plot.data) draw(); }).observe(document.body, {attributeFilter: ["class"]});
watch("value", draw);
draw();
