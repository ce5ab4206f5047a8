// The picture of the page. gradio runs this as a function of (element, trigger, props, server, upload, watch).
// props.value is what `picture_value` in answers.py returns, with the address of the image. A box is [x1, y1, x2, y2] in
// pixels of the image, half-open. Text from the server or the user is only ever set as textContent.
const find = (selector) => element.querySelector(selector);
const [frame, view, stage, image, marks] = [".frame", ".view", ".stage", "img", ".marks"].map(find);
const CLICK_PX = 4; // a pointer that moves less on the screen has clicked
const MAX_ZOOM = 16;
let box = null; // of the question
let corner = null; // after the first of two clicks
let drag = null; // what the pointer is doing since it went down
let zoom = 1;
let panning = false;
let sending = null; // the timer that sends a box after the last key

const value = () => props.value || { width: 1, height: 1, asked: "", outlines: [] };
const limit = (number, low, high) => Math.min(Math.max(number, low), high);

function numbers(text) {
  const parts = String(text || "").split(",").map((part) => (part.trim() ? Number(part) : NaN));
  const [x1, y1, x2, y2] = parts;
  const { width, height } = value();
  const inside = 0 <= x1 && x1 < x2 && x2 <= width && 0 <= y1 && y1 < y2 && y2 <= height;
  return parts.length === 4 && inside ? parts : null;
}

function spanning([x, y], [u, v]) {
  // Both pixels belong to the box.
  const { width, height } = value();
  const [low, high] = [Math.min, Math.max].map((pick) => [pick(x, u), pick(y, v)]);
  return [
    limit(low[0], 0, width - 1),
    limit(low[1], 0, height - 1),
    limit(high[0] + 1, 1, width),
    limit(high[1] + 1, 1, height),
  ];
}

// --- drawing ----------------------------------------------------------------------------------------------------

function outline(kind, label, [x1, y1, x2, y2]) {
  const { width, height } = value();
  const mark = document.createElement("div");
  mark.className = `outline ${kind}`;
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  mark.style.left = percent(x1, width);
  mark.style.top = percent(y1, height);
  mark.style.width = percent(x2 - x1, width);
  mark.style.height = percent(y2 - y1, height);
  if (label) {
    const words = document.createElement("span");
    words.textContent = label;
    words.classList.toggle("below", y1 / height < 0.1);
    words.classList.toggle("left", x1 / width > 0.6);
    mark.append(words);
  }
  return mark;
}

function outlines() {
  return value().outlines.map((each) => {
    const mark = outline(each.kind, each.kind === "found" ? each.phrase : "", each.xyxy);
    const name = each.kind === "found" ? each.phrase : `Reference: ${each.phrase}`;
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", `${name}: ${each.text}`);
    if (each.kind === "found") {
      mark.tabIndex = 0;
      mark.dataset.span = each.number;
      mark.style.setProperty("--colour", each.colour);
    }
    return mark;
  });
}

function askedOutline() {
  const mark = outline("asked", "your box", box);
  for (const name of ["nw", "ne", "sw", "se"]) {
    const handle = document.createElement("i");
    handle.dataset.corner = name;
    mark.append(handle);
  }
  return mark;
}

function draw() {
  const shown = outlines();
  if (box) shown.push(askedOutline());
  if (corner) {
    shown.push(outline("corner", "", spanning(corner, corner)));
  }
  marks.replaceChildren(...shown);
}

function layout() {
  const { width, height } = value();
  // Not clientWidth: the scrollbars of a zoomed picture would change the scale.
  const fit = Math.min((view.offsetWidth - 2) / width, (view.offsetHeight - 2) / height);
  stage.style.width = `${Math.floor(width * fit * zoom)}px`;
  stage.style.height = `${Math.floor(height * fit * zoom)}px`;
}

function show() {
  const given = props.value;
  const address = given && given.image ? given.image.url : "";
  stage.hidden = !address;
  find(".empty").hidden = !!address;
  find(".size").textContent = address ? `${given.width} × ${given.height} pixels` : "";
  if (!address) image.removeAttribute("src");
  else if (image.getAttribute("src") !== address) {
    image.src = address;
    zoom = 1;
  }
  corner = null;
  box = numbers(value().asked);
  layout();
  draw();
}

// --- changing the box -------------------------------------------------------------------------------------------

function change(next) {
  box = next;
  corner = null;
  draw();
}

function send() {
  clearTimeout(sending);
  const text = box ? box.join(",") : "";
  props.value = { ...value(), asked: text, outlines: [] };
  draw();
  find(".spoken").textContent = box ? `Your box: ${text}` : "No box";
  trigger("draw", { box: text });
}

function moved([x1, y1, x2, y2], dx, dy) {
  const { width, height } = value();
  dx = limit(dx, -x1, width - x2);
  dy = limit(dy, -y1, height - y2);
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}

function pixel(event) {
  const seen = image.getBoundingClientRect();
  const { width, height } = value();
  const [x, y] = [(event.clientX - seen.left) / seen.width, (event.clientY - seen.top) / seen.height];
  return [limit(Math.floor(x * width), 0, width - 1), limit(Math.floor(y * height), 0, height - 1)];
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || drag) return;
  const { clientX: x, clientY: y, pointerId: pointer } = event;
  drag = { x, y, pointer, start: pixel(event), before: box, mode: "draw" };
  const name = event.target.dataset.corner;
  if (panning) {
    Object.assign(drag, { mode: "pan", left: view.scrollLeft, top: view.scrollTop });
  } else if (name && box) {
    const [x1, y1, x2, y2] = box;
    // The pixel of the opposite corner, which stays.
    drag.fixed = [name.endsWith("w") ? x2 - 1 : x1, name.startsWith("n") ? y2 - 1 : y1];
    drag.mode = "resize";
  } else if (box && event.target.closest(".asked")) {
    drag.mode = "move";
  }
  stage.setPointerCapture(pointer);
  stage.focus({ preventScroll: true });
  event.preventDefault();
});

function dragged(event) {
  const [x, y] = pixel(event);
  if (drag.mode === "move") return moved(drag.before, x - drag.start[0], y - drag.start[1]);
  return spanning(drag.mode === "resize" ? drag.fixed : drag.start, [x, y]);
}

stage.addEventListener("pointermove", (event) => {
  if (!drag || event.pointerId !== drag.pointer) return;
  const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
  if (drag.mode === "pan") {
    view.scrollTo(drag.left - dx, drag.top - dy);
    return;
  }
  drag.far = drag.far || Math.hypot(dx, dy) >= CLICK_PX;
  if (drag.far) change(dragged(event));
});

stage.addEventListener("pointerup", (event) => {
  if (!drag || event.pointerId !== drag.pointer) return;
  const done = drag;
  drag = null;
  if (done.mode === "pan") return;
  if (done.far) {
    send();
  } else if (done.mode === "draw" && corner) {
    change(spanning(corner, done.start));
    send();
  } else if (done.mode === "draw") {
    corner = done.start;
    draw();
    find(".spoken").textContent = `First corner ${corner.join(",")}. Click the opposite corner.`;
  }
});

stage.addEventListener("pointercancel", () => {
  // A second finger, or the browser, has taken over: the box stays as it was.
  if (drag && drag.mode !== "pan") change(drag.before);
  drag = null;
});

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function resized([x1, y1, x2, y2], dx, dy) {
  const { width, height } = value();
  return [x1, y1, limit(x2 + dx, x1 + 1, width), limit(y2 + dy, y1 + 1, height)];
}

stage.addEventListener("keydown", (event) => {
  const { width, height } = value();
  const step = STEPS[event.key];
  if (event.target !== stage || drag) return;
  if (event.ctrlKey || event.metaKey || event.altKey || panning) return;
  if (step && box) {
    const [dx, dy] = step.map((each) => each * Math.max(1, Math.round(Math.max(width, height) / 100)));
    change(event.shiftKey ? resized(box, dx, dy) : moved(box, dx, dy));
    clearTimeout(sending);
    sending = setTimeout(send, 400);
  } else if (event.key === "Enter" && !box) {
    const [x, y] = [width, height].map((side) => Math.floor(side / 4));
    change(spanning([x, y], [width - x - 1, height - y - 1]));
    send();
  } else if (event.key === "Delete" || event.key === "Backspace") {
    if (!box && !corner) return;
    change(null);
    send();
  } else {
    return;
  }
  event.preventDefault();
});

// --- looking closer ---------------------------------------------------------------------------------------------

function zoomTo(next) {
  const [x, y] = [view.scrollLeft + view.clientWidth / 2, view.scrollTop + view.clientHeight / 2];
  const before = zoom;
  zoom = limit(next, 1, MAX_ZOOM);
  layout();
  view.scrollTo((x * zoom) / before - view.clientWidth / 2, (y * zoom) / before - view.clientHeight / 2);
}

function press(name, on) {
  find(`[data-do=${name}]`).setAttribute("aria-pressed", String(on));
}

function enlarge(on) {
  frame.classList.toggle("enlarged", on);
  press("enlarge", on);
  layout();
}

const actions = {
  smaller: () => zoomTo(zoom / 1.5),
  larger: () => zoomTo(zoom * 1.5),
  fit: () => zoomTo(1),
  pan: () => {
    panning = !panning;
    stage.classList.toggle("panning", panning);
    press("pan", panning);
  },
  enlarge: () => enlarge(!frame.classList.contains("enlarged")),
  clear: () => {
    if (!box && !corner) return;
    change(null);
    send();
  },
};
find(".bar").addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button && props.value) actions[button.dataset.do]();
});
view.addEventListener(
  "wheel",
  (event) => {
    if (!event.ctrlKey || !props.value) return;
    event.preventDefault();
    zoomTo(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
  },
  { passive: false },
);
frame.addEventListener("keydown", (event) => {
  if (event.key === "Escape") enlarge(false);
});

// --- phrases and boxes light each other up, in the picture and in the answer -------------------------------------

function light(event, on) {
  const part = event.target instanceof Element && event.target.closest("[data-span]");
  if (!part) return;
  for (const each of document.querySelectorAll("[data-span]")) {
    each.classList.toggle("lit", on && each.dataset.span === part.dataset.span);
  }
}
for (const name of ["pointerover", "focusin"]) document.addEventListener(name, (event) => light(event, true));
for (const name of ["pointerout", "focusout"]) document.addEventListener(name, (event) => light(event, false));

new ResizeObserver(layout).observe(view);
watch("value", show);
show();
