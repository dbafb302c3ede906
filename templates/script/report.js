"use strict";
// The report can be read without this script. It adds what only a machine can do: sort, filter, step, blink, zoom.
// It reads values from the page alone and writes them as text only.

// Before the first paint: images wait until they are opened, and controls that need this script appear
document.documentElement.classList.add("scripted");

document.addEventListener("DOMContentLoaded", () => {
  const list = fileList(document.querySelector(".files"));
  const images = imageViews(list);
  keyboard(images);
});

/** The list of files: sorted, filtered, counted, and shown a portion at a time. */
function fileList(section) {
  const PORTION = 500; // rows that are laid out: a table of ten thousand is slow, one of these is not
  const [table, ...continued] = section.querySelectorAll(".grid");
  const body = table.tBodies[0];
  const search = section.querySelector("#filter-text");
  const boxes = [...section.querySelectorAll(".filter [type=checkbox]")];
  const count = section.querySelector(".count");
  const more = section.querySelector(".more");
  const collator = new Intl.Collator("en", { numeric: true });
  const rows = [table, ...continued].flatMap((part) => [...part.tBodies[0].rows]).map((element, position) => ({
    element,
    position,
    kind: element.dataset.kind,
    text: element.textContent.toLowerCase(),
    link: element.querySelector("a"),
  }));
  for (const part of continued) part.parentElement.remove();
  let sorted = rows; // all, in the order that was asked for
  let matching = rows; // of these, what the filter lets through
  let shown = PORTION;

  function draw() {
    body.replaceChildren(...matching.slice(0, shown).map((row) => row.element));
    more.hidden = matching.length <= shown;
    const files = (n) => `${n.toLocaleString("en")} ${n === 1 ? "file" : "files"}`;
    const told = matching.length === rows.length ? files(rows.length)
      : `${matching.length.toLocaleString("en")} of ${files(rows.length)}`;
    count.textContent = more.hidden ? told : `${told}, the first ${shown.toLocaleString("en")} shown`;
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kinds = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const told = sorted.filter((row) => words.every((word) => row.text.includes(word)));
    matching = told.filter((row) => kinds.has(row.kind));
    // How many of each decision the text alone leaves
    for (const box of boxes) {
      const n = told.filter((row) => row.kind === box.value).length;
      box.parentElement.querySelector(".tally").textContent = n.toLocaleString("en");
    }
    shown = PORTION;
    draw();
  }

  function sortBy(header, column) {
    const rising = header.getAttribute("aria-sort") !== "ascending";
    for (const other of section.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const keyed = rows.map((row) => ({ row, key: keyOf(row.element.cells[column]) }));
    keyed.sort((a, b) => compared(a.key, b.key, rising ? 1 : -1) || a.row.position - b.row.position);
    sorted = keyed.map(({ row }) => row);
    filter();
  }

  function keyOf(cell) {
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  }

  function compared(a, b, sign) {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no number comes last, either way
    return sign * (typeof a === "number" ? a - b : collator.compare(a, b));
  }

  for (const [column, header] of [...section.querySelectorAll("thead th")].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header, column));
    header.append(button);
  }
  search.addEventListener("input", filter);
  for (const box of boxes) box.addEventListener("change", filter);
  more.addEventListener("click", () => {
    const first = shown;
    shown += PORTION;
    draw();
    matching.slice(first).find((row) => row.link)?.link.focus();
  });
  filter(); // a browser may bring back what was typed before

  return {
    search,
    /** Links to the images of the filtered list, in its order. */
    links: () => matching.filter((row) => row.link).map((row) => row.link),
    /** Bring the link to an image into the list and go there, unless the filter leaves it out. */
    focus(id) {
      const at = matching.findIndex((row) => row.link?.hash === `#${id}`);
      if (at >= shown) {
        shown = PORTION * Math.ceil((at + 1) / PORTION);
        draw();
      }
      matching[at]?.link.focus();
    },
  };
}

/** One image at a time, chosen by the address: so the browser's own "back" works. */
function imageViews(list) {
  const bar = document.querySelector(".imagebar");
  const title = document.title;
  const settings = { opacity: 75, regions: true, map: "" }; // go with the reader from image to image
  let open = null;

  function follow() {
    const target = document.getElementById(location.hash.slice(1));
    const section = target?.classList.contains("image") ? target : null;
    if (section === (open?.section ?? null)) return;
    const left = open?.section.id;
    open?.viewer.leave();
    open?.section.classList.remove("open");
    open = section && { section, viewer: viewerOf(section, settings) };
    document.body.classList.toggle("image-open", Boolean(open));
    bar.hidden = !open;
    document.title = open ? `${section.id}, ${title}` : title;
    if (open) {
      section.classList.add("open");
      tellPosition();
      section.scrollIntoView();
      section.querySelector("h2").focus({ preventScroll: true });
    } else {
      target?.scrollIntoView();
      if (!target || target.matches(".files")) list.focus(left);
    }
  }

  /** Where the open image lies among the links of the list; -1 where the filter leaves it out. */
  function position(links) {
    return links.findIndex((link) => link.hash === `#${open?.section.id}`);
  }

  function tellPosition() {
    const links = list.links();
    const at = position(links);
    bar.querySelector(".position").textContent =
      at < 0 ? `${open.section.id}, not in the filtered list` : `${open.section.id}, ${at + 1} of ${links.length}`;
    bar.querySelector(".previous").disabled = at <= 0 && !neighbour(-1);
    bar.querySelector(".next").disabled = at === links.length - 1 && !neighbour(1);
  }

  /** The page of images before or after this one; the first page goes by its list, which knows all images. */
  function neighbour(by) {
    if (document.body.dataset.whole !== undefined) return null;
    const page = document.querySelector(by < 0 ? "a[rel=prev]" : "a[rel=next]");
    return page && `${page.href}#${by < 0 ? page.dataset.last : page.dataset.first}`;
  }

  function step(by) {
    const links = list.links();
    const at = open ? position(links) : links.indexOf(document.activeElement);
    const wanted = links[at < 0 ? 0 : at + by];
    if (!open && wanted) list.focus(wanted.hash.slice(1));
    else if (wanted) go(wanted);
    else if (open && neighbour(by)) location.assign(neighbour(by));
  }

  /** Follow a link at once: the next key must not find the page as it was. */
  function go(link) {
    link.click();
    follow();
  }

  function close() {
    if (open) go(bar.querySelector(".back"));
  }

  function find() {
    close();
    list.search.select();
  }

  bar.querySelector(".previous").addEventListener("click", () => step(-1));
  bar.querySelector(".next").addEventListener("click", () => step(1));
  addEventListener("hashchange", follow);
  follow();
  return { step, close, find, viewer: () => open?.viewer };
}

/** The pictures of one image: layers, opacity, blinking and zoom. */
function viewerOf(section, settings) {
  const PERIOD = 700; // ms that each picture is seen: far below three flashes a second
  const viewer = section.querySelector(".viewer");
  const slider = viewer.querySelector(".opacity");
  const regions = viewer.querySelector(".regions");
  const maps = [...viewer.querySelectorAll(".choice [type=radio]")];
  const zooms = [...viewer.querySelectorAll(".zoom")];
  const blink = viewer.querySelector(".blink-toggle");
  const layers = [...viewer.querySelectorAll(".layers")];
  const ends = new AbortController(); // takes all listeners off when the image is left
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;
  let before = settings.opacity || 75; // what "O" brings back

  function fade(opacity) {
    settings.opacity = Number(opacity);
    slider.value = settings.opacity;
    viewer.querySelector("output").textContent = `${settings.opacity} %`;
    viewer.style.setProperty("--opacity", settings.opacity / 100);
  }

  function toggleOpacity() {
    if (settings.opacity > 0) before = settings.opacity;
    fade(settings.opacity > 0 ? 0 : before);
  }

  function toggleRegions() {
    if (regions) settings.regions = regions.checked = !regions.checked;
  }

  /** Maps are remembered by their names: not every image has the same ones. */
  const nameOf = (map) => map.parentElement.textContent.trim();

  function pick(map) {
    map.checked = true;
    settings.map = nameOf(map);
  }

  function nextMap() {
    if (maps.length) pick(maps[(maps.findIndex((map) => map.checked) + 1) % maps.length]);
  }

  /** Lay the reference over the photograph in its place, or take it away. */
  function swap() {
    const stage = layers[0];
    if (!stage.querySelector(".reference")) stage.append(viewer.querySelector(".nominal .reference").cloneNode());
    viewer.classList.toggle("nominal-shown");
  }

  function toggleBlink() {
    if (!blink) return;
    if (still.matches) {
      swap(); // nothing moves by itself: each press changes the picture
      blink.setAttribute("aria-pressed", viewer.classList.contains("nominal-shown"));
    } else if (timer) {
      stopBlink();
    } else {
      swap();
      timer = setInterval(swap, PERIOD);
      blink.setAttribute("aria-pressed", "true");
    }
  }

  function stopBlink() {
    clearInterval(timer);
    timer = 0;
    viewer.classList.remove("nominal-shown");
    blink?.setAttribute("aria-pressed", "false");
  }

  /** Show a part of all pictures alike: its centre in the middle, as far as the picture reaches. */
  function zoom(button) {
    const [x, y, scale] = button.dataset.view.split(" ").map(Number);
    const shift = (centre) => 100 * Math.min(0, Math.max(1 - scale, 0.5 - centre * scale));
    for (const layer of layers) layer.style.transform = `translate(${shift(x)}%, ${shift(y)}%) scale(${scale})`;
    viewer.style.setProperty("--zoom", scale);
    for (const other of zooms) other.setAttribute("aria-pressed", String(other === button));
  }

  function nextZoom() {
    if (!zooms.length) return;
    const at = zooms.findIndex((button) => button.getAttribute("aria-pressed") === "true");
    zoom(zooms[(at + 1) % zooms.length]);
  }

  const on = (element, event, does) => element?.addEventListener(event, does, { signal: ends.signal });
  on(slider, "input", () => fade(slider.value));
  on(regions, "change", () => { settings.regions = regions.checked; });
  for (const map of maps) on(map, "change", () => pick(map));
  for (const button of zooms) on(button, "click", () => zoom(button));
  on(blink, "click", toggleBlink);
  fade(settings.opacity);
  if (regions) regions.checked = settings.regions;
  const same = maps.find((map) => nameOf(map) === settings.map);
  if (same) same.checked = true;

  return {
    toggleOpacity,
    toggleRegions,
    toggleBlink,
    nextMap,
    nextZoom,
    leave() {
      stopBlink();
      ends.abort();
    },
  };
}

/** Single keys for all of it; the list of keys lies behind "?". */
function keyboard(images) {
  const dialog = document.querySelector("dialog.keys");
  const enabled = dialog.querySelector(".keys-on");
  const actions = {
    j: () => images.step(1),
    k: () => images.step(-1),
    ArrowRight: () => images.viewer() && images.step(1),
    ArrowLeft: () => images.viewer() && images.step(-1),
    o: () => images.viewer()?.toggleOpacity(),
    b: () => images.viewer()?.toggleBlink(),
    r: () => images.viewer()?.toggleRegions(),
    z: () => images.viewer()?.nextZoom(),
    m: () => images.viewer()?.nextMap(),
    "/": () => images.find(),
    "?": () => dialog.showModal(),
    Escape: () => images.close(),
  };

  addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const typing = event.target.matches("input[type=search]");
    const own = event.target.matches("input[type=range], input[type=radio]") && key.startsWith("Arrow");
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open || own) return;
    if (typing && key === "Escape") event.target.blur();
    if (typing || (!enabled.checked && key.length === 1) || !Object.hasOwn(actions, key)) return;
    event.preventDefault();
    actions[key]();
  });
  document.querySelector(".help").addEventListener("click", () => dialog.showModal());
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
}
