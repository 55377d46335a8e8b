// Brings the live parts of a page up to date, draws plots, and keeps the URLs of filters short. Pages can be read without it.
"use strict";

(() => {
  const RETRY_MS = 5000;
  const PLOT_MS = 15000;
  const DAY = 86400; // in seconds, as uPlot counts
  const LINES = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5"];

  // The Content-Security-Policy forbids eval and inline styles. Pages may hold texts of messages, so none is kept in the
  // browser's storage.
  Object.assign(htmx.config, {
    allowEval: false,
    allowScriptTags: false,
    historyEnabled: false,
    includeIndicatorStyles: false,
    selfRequestsOnly: true,
  });
  sessionStorage.removeItem("htmx-current-path-for-history"); // a path may name a chat or a text

  // Live parts: <div data-live="URL of server-sent events">

  const state = document.querySelector("[data-live-state]");
  const parts = () => document.querySelectorAll("[data-live]");
  const sources = new Set();
  let retry = 0;

  const connect = htmx.createEventSource;
  htmx.createEventSource = (url) => {
    const source = connect(url);
    sources.add(source);
    return source;
  };

  function show(name, text) {
    if (!state || state.dataset.liveState === name) return;
    state.dataset.liveState = name;
    state.textContent = text;
  }

  function disconnect(name, text) {
    clearTimeout(retry);
    sources.forEach((source) => source.close());
    sources.clear();
    parts().forEach((part) => {
      part.removeAttribute("sse-connect");
      htmx.process(part); // so that the next attribute counts as a change
    });
    if (parts().length) show(name, text);
  }

  function follow() {
    disconnect("waiting", "Connecting");
    parts().forEach((part) => {
      part.setAttribute("hx-ext", "sse, morph");
      part.setAttribute("hx-swap", "morph:innerHTML"); // keeps the focus, the selection and what is scrolled
      part.setAttribute("sse-swap", "message");
      part.setAttribute("sse-connect", part.dataset.live);
      htmx.process(part);
    });
  }

  document.addEventListener("htmx:sseOpen", () => show("on", "Live"));
  document.addEventListener("htmx:sseError", () => {
    if (document.hidden) return;
    disconnect("lost", "Not live: trying again");
    retry = setTimeout(follow, RETRY_MS);
  });

  // Plots: <figure data-plot="URL of JSON">, with a table of the same values for those who cannot see them

  const plots = new Map();

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    return { lines: LINES.map(value), axis: value("--muted"), grid: value("--rule") };
  }

  // In UTC, as everywhere on the pages: a date, or a time with seconds if the step is short
  function time(at, step) {
    const text = new Date(at * 1000).toISOString();
    return step >= DAY ? text.slice(0, 10) : text.slice(11, step >= 60 ? 16 : 19);
  }

  function options(figure, data) {
    const { lines, axis, grid } = colours();
    const axes = { stroke: axis, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const series = data.series.map((each, index) => ({
      label: each.label,
      value: (_plot, value) => (value == null ? "" : value.toLocaleString("en")),
      stroke: lines[index % lines.length],
      width: 1.5,
      points: { show: data.x.length < 3 },
      fill: index ? undefined : lines[0] + "22",
    }));
    return {
      width: Math.max(280, figure.clientWidth),
      height: 220,
      padding: [8, 32, 0, 0],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { y: { range: (_plot, _low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [{ ...axes, space: 72, values: (_plot, splits, _index, _space, step) => splits.map((at) => time(at, step)) }, axes],
      series: [{ label: "Time", value: (_plot, at) => (at == null ? "" : `${time(at, DAY)} ${time(at, 1)}`) }, ...series],
      cursor: { drag: { x: false, y: false } },
    };
  }

  function draw(figure, data) {
    const values = [data.x, ...data.series.map((each) => each.values)];
    const drawn = plots.get(figure);
    const labels = data.series.map((each) => each.label).join("\n");
    if (drawn && drawn.labels === labels) {
      drawn.plot.setData(values);
      drawn.data = data;
      return;
    }
    if (drawn) drawn.plot.destroy();
    const place = figure.querySelector(".plot") || document.createElement("div");
    place.className = "plot";
    place.setAttribute("aria-hidden", "true"); // the table says the same
    const caption = figure.querySelector("figcaption");
    if (caption) caption.after(place);
    else figure.prepend(place);
    plots.set(figure, { plot: new uPlot(options(figure, data), values, place), labels, data });
  }

  async function load(figure) {
    try {
      const response = await fetch(figure.dataset.plot, { headers: { Accept: "application/json" } });
      const data = response.ok ? await response.json() : { x: [] };
      if (data.x.length) draw(figure, data);
    } catch {
      // The server is away: what is drawn stays, and the live state says so.
    }
  }

  function redraw() {
    for (const [figure, { plot, data }] of [...plots]) { // a copy: what is drawn anew would be next, for ever
      plot.destroy();
      plots.delete(figure);
      draw(figure, data);
    }
  }

  function loadPlots() {
    if (!document.hidden) document.querySelectorAll("[data-plot]").forEach(load);
  }

  // Filters: fields that are empty stay out of the URL, which people keep and pass on

  document.addEventListener("submit", ({ target }) => {
    if (!target.matches("form.filter")) return;
    const fields = [...target.elements].filter((field) => field.name && !field.value && !field.required);
    fields.forEach((field) => (field.disabled = true));
    setTimeout(() => fields.forEach((field) => (field.disabled = false)));
  });

  // A hidden tab costs nothing

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) disconnect("paused", "Paused");
    else follow();
    loadPlots();
  });
  window.addEventListener("pagehide", () => disconnect("paused", "Paused"));
  window.addEventListener("pageshow", ({ persisted }) => persisted && follow());
  window.addEventListener("resize", () => {
    for (const [figure, { plot }] of plots) plot.setSize({ width: Math.max(280, figure.clientWidth), height: 220 });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("DOMContentLoaded", () => {
    if (!document.hidden) follow();
    loadPlots();
    setInterval(loadPlots, PLOT_MS);
  });
})();
