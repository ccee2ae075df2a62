// The page "Try it on your image": takes a file, lets worker.js enlarge it, shows the result.

const here = (name) => new URL(name, import.meta.url).href;
const root = document.getElementById("try-it");
const part = (name) => root.querySelector(`[data-part="${name}"]`);
const [form, input, sample, drop, choice] = ["form", "file", "sample", "drop", "choice"].map(part);
const [start, cancel, bar, status, alert] = ["start", "cancel", "bar", "status", "alert"].map(part);
const [outcome, heading, compare, facts, again, download] = [
  "outcome", "heading", "compare", "facts", "again", "download",
].map(part);
// A smaller tile takes less memory, and more time: add ?tile=32 to the page's address.
const tile = Number(new URLSearchParams(location.search).get("tile")) || undefined;

let chosen = null; // {file, name, original}: what is to be enlarged
let running = null; // what is being enlarged: {file, name, original, model, seed}
let shown = null; // what was enlarged last
let worker = null;
let addresses = []; // of the blobs that are shown

/** A worker that this page's content-security policy holds for, too. */
function makeWorker() {
  // A worker made from a file obeys the headers of that file, and a plain web server sends none.
  // One that is made from a blob inherits the policy of its page.
  const code = new Blob([`import ${JSON.stringify(here("worker.js"))};`], { type: "text/javascript" });
  const address = URL.createObjectURL(code);
  const made = new Worker(address, { type: "module" });
  made.addEventListener("message", receive);
  made.addEventListener("error", () => fail("The program that enlarges could not be started."));
  return made;
}

function choose(file, original = null) {
  chosen = { file, name: file.name, original };
  alert.textContent = "";
  choice.textContent = original ? "Chosen: the sample." : `Chosen: ${file.name}`;
}

function run() {
  if (running) return;
  if (!chosen) {
    alert.textContent = "Choose a file first, or take the sample.";
    input.focus();
    return;
  }
  outcome.hidden = true;
  begin({ ...chosen, model: new FormData(form).get("model"), seed: 0 });
  cancel.focus();
}

/** Enlarge the same image again with other dice; the last result stays until the next is there. */
function throwAgain() {
  if (running) return;
  begin({ ...shown, seed: shown.seed + 1 });
  again.textContent = "Throwing the dice …";
}

function begin(what) {
  running = what;
  alert.textContent = "";
  status.textContent = "Starting.";
  bar.removeAttribute("value");
  bar.hidden = cancel.hidden = false;
  start.hidden = true;
  worker ??= makeWorker();
  worker.postMessage({ file: what.file, model: what.model, tile, seed: what.seed });
}

/** Put the page back as it was before the start. */
function stop(message) {
  const focused = document.activeElement === cancel;
  running = null;
  status.textContent = message;
  start.hidden = false;
  bar.hidden = cancel.hidden = true;
  again.textContent = "Throw again";
  if (focused) start.focus();
}

function fail(message) {
  worker?.terminate();
  worker = null;
  stop("");
  alert.textContent = message;
}

function receive({ data }) {
  if (!running) return;
  if (data.error) {
    fail(data.error);
  } else if (data.stage) {
    status.textContent = data.stage;
  } else if (data.of) {
    bar.max = data.of;
    bar.value = data.done;
    status.textContent = `${data.done} of ${data.of} tiles computed.`;
  } else {
    show(data);
  }
}

function show({ result, bicubic, height, width, dice }) {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [bicubic, result].map((blob) => URL.createObjectURL(blob));
  const { name, model, original, seed } = running;
  const label = form.querySelector(`[value="${model}"]`).dataset.title;
  const what = original ? "The sample" : name;
  const images = [
    { label: "Bicubic", src: addresses[0], alt: `${what}, enlarged four times by bicubic interpolation.` },
    { label, src: addresses[1], alt: `${what}, enlarged four times by ${label}; computed, not for diagnosis.` },
  ];
  if (original) images.push({ label: "HR", src: original, alt: "The original of the sample." });
  // Another throw takes the place of the last: the same spot of the image stays in view.
  const flips = shown && seed > shown.seed && shown.file === running.file && shown.model === model;
  const wipe = flips && compare.querySelector("image-wipe");
  if (wipe?.setImages) wipe.setImages(images);
  else compare.replaceChildren(pictures(images));
  facts.textContent = `${what}: ${width} × ${height} pixels, by ${label}${dice ? `, the throw with seed ${seed}` : ""}.`;
  download.href = addresses[1];
  download.download = `${name.replace(/\.(png|jpe?g|dcm|dicom)$/i, "")}_x4${seed ? `_seed${seed}` : ""}.png`;
  again.hidden = !dice;
  outcome.hidden = false;
  shown = running;
  stop("Done.");
  if (document.activeElement !== again) heading.focus();
}

/** The images in the wipe, or one after the other where that is not there. */
function pictures(images) {
  const figures = images.map(({ label, src, alt }) => {
    const figure = document.createElement("figure");
    const image = Object.assign(new Image(), { src, alt });
    const caption = Object.assign(document.createElement("figcaption"), { textContent: label });
    figure.append(image, caption);
    return figure;
  });
  const wipe = document.createElement("image-wipe"); // unknown, it is an element like any other
  wipe.setAttribute("right", images[1].label); // the result, not the sample's original
  wipe.append(...figures);
  return wipe;
}

input.addEventListener("change", () => input.files[0] && choose(input.files[0]));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
again.addEventListener("click", throwAgain);
cancel.addEventListener("click", () => {
  worker.terminate();
  worker = null;
  stop("Cancelled.");
});
sample.addEventListener("click", async () => {
  const response = await fetch(here("models/sample.png")).catch(() => null);
  if (!response?.ok) {
    alert.textContent = "The sample could not be loaded.";
    return;
  }
  input.value = "";
  choose(new File([await response.blob()], "sample.png"), here("models/sample_hr.png"));
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragenter" || name === "dragover");
  });
}
drop.addEventListener("drop", ({ dataTransfer }) => {
  if (dataTransfer.files[0]) choose(dataTransfer.files[0]);
});
document.getElementById("try-it-needs").hidden = true;
root.hidden = false;
