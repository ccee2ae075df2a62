/* <image-wipe>: two images of several laid over each other, and a divider to drag between them.
 *
 * <image-wipe label="What is compared" left="LR" right="HR">
 *   <figure><img src="lr.png" alt="..." style="image-rendering: pixelated"><figcaption>LR</figcaption></figure>
 *   <figure><img src="hr.png" alt="..."><figcaption>HR</figcaption></figure>
 * </image-wipe>
 *
 * All attributes may be left out; `left` and `right` name captions (the first and the last).
 * A script fills it with `wipe.setImages([{label, src, alt}, ...])`. Without scripts, in print and
 * with fewer than two images the figures are shown as they are, in a row (wipe.css).
 *
 * All images show the same region, whatever their number of pixels. Both have one transform, so
 * that they stay in register. Nothing moves by itself.
 */
(() => {
  if (customElements.get("image-wipe")) return;

  const MAX_ZOOM = 8;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  const TEMPLATE = `
<style>
  :host { display: block; max-width: var(--wipe-width, 36rem); margin: 1rem auto; }
  * { box-sizing: border-box; }
  [hidden] { display: none !important; }
  slot { display: none; }
  .wipe[hidden] ~ slot { display: contents; }
  .bar { display: flex; flex-wrap: wrap; align-items: center; gap: 0.4rem; margin-block: 0.4rem; }
  .sides { flex-wrap: nowrap; justify-content: space-between; }
  .sides label { display: flex; flex-wrap: wrap; align-items: center; gap: 0 0.4rem; min-width: 0; }
  .sides label:last-child { justify-content: flex-end; }
  select, button {
    min-height: 2.5rem; min-width: 2.5rem; max-width: 100%; padding: 0.2rem 0.6rem;
    font: inherit; color: inherit; background: transparent;
    border: 1px solid currentColor; border-radius: 0.4rem; cursor: pointer;
  }
  option { color: CanvasText; background: Canvas; }
  input { flex: 1 1 6rem; min-width: 4rem; max-width: 14rem; height: 2.5rem; accent-color: #0f7391; }
  output { min-width: 2.6em; font-variant-numeric: tabular-nums; }
  .hint { margin: 0; font-size: 0.85em; }
  :focus-visible { outline: 3px solid #0f7391; outline-offset: 2px; box-shadow: 0 0 0 2px #fff; }
  .view {
    position: relative; width: 100%; overflow: hidden; touch-action: pan-y; user-select: none;
    -webkit-user-select: none; cursor: ew-resize; background: #000; border-radius: 0.3rem;
  }
  .view.zoomed { touch-action: none; cursor: move; }
  .side { position: absolute; inset: 0; overflow: hidden; }
  .side.right { clip-path: inset(0 0 0 var(--divide)); }
  .side img {
    position: absolute; inset: 0; display: block; width: 100%; height: 100%; max-width: none;
    transform-origin: 0 0; transform: translate(var(--x), var(--y)) scale(var(--zoom));
    pointer-events: none;
  }
  .divider {
    position: absolute; top: 0; bottom: 0; left: var(--divide); width: 44px; margin-left: -22px;
    touch-action: pan-y; cursor: ew-resize; outline: none;
  }
  .divider::before {
    content: ""; position: absolute; top: 0; bottom: 0; left: 20px; width: 4px;
    background: #fff; border-inline: 1px solid #111;
  }
  .divider::after {
    content: "\\25C2\\2009\\25B8"; position: absolute; top: calc(50% - 18px); left: 4px;
    width: 36px; height: 36px; border: 2px solid #111; border-radius: 50%; background: #fff;
    color: #111; font: 16px/32px system-ui, sans-serif; text-align: center;
  }
  .divider:focus-visible { box-shadow: none; }
  .divider:focus-visible::after { outline: 3px solid #ffd34d; box-shadow: 0 0 0 6px #111; }
  @media print { .wipe { display: none; } slot { display: contents; } }
</style>
<div class="wipe" role="group">
  <div class="bar sides">
    <label>Left <select class="left"></select></label>
    <label>Right <select class="right"></select></label>
  </div>
  <div class="view">
    <div class="side left"><img draggable="false"></div>
    <div class="side right"><img draggable="false"></div>
    <div class="divider" role="slider" tabindex="0" aria-label="Divider"
         aria-valuemin="0" aria-valuemax="100"></div>
  </div>
  <div class="bar">
    <button type="button" class="out" aria-label="Zoom out">&minus;</button>
    <input type="range" min="1" max="${MAX_ZOOM}" step="0.25" aria-label="Zoom">
    <button type="button" class="in" aria-label="Zoom in">+</button>
    <output></output>
    <button type="button" class="reset">Reset</button>
  </div>
  <p class="hint">Drag the divider, or use the arrow keys. Zoom with the buttons, Ctrl and wheel, or
    two fingers; then drag the image.</p>
</div>
<slot></slot>`;

  class ImageWipe extends HTMLElement {
    #figures = [];
    #chosen = { left: 0, right: 1 };
    #divide = 50; // per cent of the width
    #zoom = 1;
    #x = 0; // where the images' upper left corner is, as a share of the view
    #y = 0;
    #pointers = new Map();
    #dragged = null; // "divider", "image", or null

    connectedCallback() {
      if (!this.shadowRoot) this.#build();
      this.#read();
      // While a page is being parsed, the figures come only after this.
      if (document.readyState === "loading")
        addEventListener("DOMContentLoaded", () => this.#read(), { once: true });
    }

    /** Show other images: at least two of {label, src, alt}.
     *
     * Where they are called as those before, one takes the place of the other: what was chosen,
     * the divider and the zoom stay. */
    setImages(images) {
      const figures = images.map(({ label, src, alt }) => {
        const [figure, image, caption] = ["figure", "img", "figcaption"].map((name) =>
          document.createElement(name),
        );
        image.src = src;
        image.alt = alt;
        caption.textContent = label;
        figure.append(image, caption);
        return figure;
      });
      this.replaceChildren(...figures);
      if (this.shadowRoot) this.#read();
    }

    /** The divider to the middle, and the whole images. */
    reset() {
      this.#divide = 50;
      this.#zoomTo(1);
    }

    #get(selector) {
      return this.shadowRoot.querySelector(selector);
    }

    #build() {
      this.attachShadow({ mode: "open" }).innerHTML = TEMPLATE;
      this.#get(".wipe").setAttribute("aria-label", this.getAttribute("label") ?? "Compare images");
      for (const side of ["left", "right"]) {
        this.#get(`select.${side}`).addEventListener("change", (event) => {
          const other = side === "left" ? "right" : "left";
          const before = this.#chosen[side];
          this.#chosen[side] = event.target.selectedIndex;
          if (this.#chosen[other] === this.#chosen[side]) this.#chosen[other] = before;
          this.#show();
        });
      }
      this.#get(".out").addEventListener("click", () => this.#zoomTo(this.#zoom / 2));
      this.#get(".in").addEventListener("click", () => this.#zoomTo(this.#zoom * 2));
      this.#get(".reset").addEventListener("click", () => this.reset());
      this.#get("input").addEventListener("input", (e) => this.#zoomTo(Number(e.target.value)));

      const view = this.#get(".view");
      view.addEventListener("keydown", (event) => this.#onKey(event));
      view.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
      view.addEventListener("pointerdown", (event) => this.#onDown(event));
      view.addEventListener("pointermove", (event) => this.#onMove(event));
      view.addEventListener("pointerup", (event) => this.#onUp(event));
      view.addEventListener("pointercancel", (event) => this.#forget(event));
      new ResizeObserver(() => this.#update()).observe(view);
    }

    /** Take the figures as they stand in the page. */
    #read() {
      this.#figures = [...this.querySelectorAll("figure")]
        .filter((figure) => figure.querySelector("img"))
        .map((figure) => {
          const image = figure.querySelector("img");
          return { image, label: figure.querySelector("figcaption")?.textContent.trim() || image.alt };
        });
      const labels = this.#figures.map((figure) => figure.label);
      const before = [...this.#get("select.left").options].map((option) => option.text);
      const same = before.length > 1 && before.join("\n") === labels.join("\n");
      const place = (side, otherwise) => {
        const found = labels.indexOf(this.getAttribute(side));
        return found < 0 ? otherwise : found;
      };
      this.#get(".wipe").hidden = labels.length < 2;
      if (labels.length < 2) return;
      if (!same)
        this.#chosen = { left: place("left", 0), right: place("right", labels.length - 1) };
      for (const side of ["left", "right"])
        this.#get(`select.${side}`).replaceChildren(...labels.map((label) => new Option(label)));
      for (const { image } of this.#figures)
        if (!image.complete) image.addEventListener("load", () => this.#update(), { once: true });
      this.#show();
      if (!same) this.reset();
    }

    /** Put the chosen images and their names where they belong. */
    #show() {
      for (const side of ["left", "right"]) {
        const { image } = this.#figures[this.#chosen[side]];
        const shown = this.#get(`.side.${side} img`);
        shown.src = image.src;
        shown.alt = image.alt;
        this.#get(`select.${side}`).selectedIndex = this.#chosen[side];
      }
      this.#update();
    }

    /** Bring what is seen in line with the state. */
    #update() {
      if (this.#figures.length < 2) return;
      const view = this.#get(".view");
      const size = ({ image }) => [
        image.naturalWidth || Number(image.getAttribute("width")) || 1,
        image.naturalHeight || Number(image.getAttribute("height")) || 1,
      ];
      const [width, height] = this.#figures.map(size).reduce((a, b) => (b[0] > a[0] ? b : a));
      view.style.aspectRatio = `${width} / ${height}`;
      view.style.setProperty("--divide", `${this.#divide}%`);
      view.style.setProperty("--zoom", this.#zoom);
      view.style.setProperty("--x", `${100 * this.#x}%`);
      view.style.setProperty("--y", `${100 * this.#y}%`);

      // LR is always shown as its pixels are, the others as soon as each can be seen.
      for (const side of ["left", "right"]) {
        const [pixels] = size(this.#figures[this.#chosen[side]]);
        const large = (view.clientWidth * this.#zoom) / pixels >= 2;
        const pixelated = pixels < width || large;
        this.#get(`.side.${side} img`).style.imageRendering = pixelated ? "pixelated" : "auto";
      }
      for (const figure of this.#figures)
        if (size(figure)[0] < width) figure.image.style.imageRendering = "pixelated"; // in print

      const [left, right] = ["left", "right"].map((s) => this.#figures[this.#chosen[s]].label);
      const divider = this.#get(".divider");
      divider.setAttribute("aria-valuenow", Math.round(this.#divide));
      divider.setAttribute(
        "aria-valuetext",
        `${Math.round(this.#divide)} %: ${left} on the left, ${right} on the right`,
      );
      const zoomed = this.#zoom > 1;
      view.classList.toggle("zoomed", zoomed);
      if (zoomed) {
        view.tabIndex = 0;
        view.setAttribute("role", "group");
        view.setAttribute("aria-label", "Enlarged images: move them with the arrow keys");
      } else for (const name of ["tabindex", "role", "aria-label"]) view.removeAttribute(name);
      const range = this.#get("input");
      range.value = this.#zoom;
      range.setAttribute("aria-valuetext", `${this.#zoom.toFixed(1)} times`);
      this.#get("output").textContent = `${this.#zoom.toFixed(1)}\u00d7`;
      this.#get(".out").disabled = !zoomed;
      this.#get(".in").disabled = this.#zoom >= MAX_ZOOM;
    }

    #divideAt(percent) {
      this.#divide = clamp(percent, 0, 100);
      this.#update();
    }

    #moveTo(x, y) {
      this.#x = clamp(x, 1 - this.#zoom, 0);
      this.#y = clamp(y, 1 - this.#zoom, 0);
      this.#update();
    }

    /** Zoom so that the point (px, py), as shares of the view, stays where it is. */
    #zoomTo(zoom, px = 0.5, py = 0.5) {
      const before = this.#zoom;
      this.#zoom = clamp(zoom, 1, MAX_ZOOM);
      const factor = this.#zoom / before;
      this.#moveTo(px - (px - this.#x) * factor, py - (py - this.#y) * factor);
    }

    #onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const zooms = { "+": 2, "=": 2, "-": 0.5, 0: 0 };
      const onDivider = event.target === this.#get(".divider");
      const by = event.shiftKey ? 10 : 2;
      const divides = {
        ArrowLeft: -by, ArrowDown: -by, ArrowRight: by, ArrowUp: by,
        PageDown: -10, PageUp: 10, Home: -100, End: 100,
      };
      if (event.key in zooms) this.#zoomTo(this.#zoom * zooms[event.key]);
      else if (onDivider && event.key in divides) this.#divideAt(this.#divide + divides[event.key]);
      else if (!onDivider && event.key in moves) {
        const [right, down] = moves[event.key];
        this.#moveTo(this.#x - 0.1 * right, this.#y - 0.1 * down);
      } else return;
      event.preventDefault();
    }

    /** The page goes on scrolling; a wheel with Ctrl, and a trackpad's pinch, zoom. */
    #onWheel(event) {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const factor = Math.exp(clamp(-event.deltaY, -100, 100) * 0.005);
      this.#zoomTo(this.#zoom * factor, ...this.#share(event));
    }

    /** Where an event happened, as shares of the view. */
    #share({ clientX, clientY }) {
      const box = this.#get(".view").getBoundingClientRect();
      return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
    }

    #onDown(event) {
      if (event.button !== 0) return;
      this.#get(".view").setPointerCapture(event.pointerId);
      this.#pointers.set(event.pointerId, event);
      const onDivider = event.composedPath().includes(this.#get(".divider"));
      this.#dragged = this.#zoom > 1 && !onDivider ? "image" : "divider";
      if (onDivider) this.#get(".divider").focus({ focusVisible: false });
    }

    #onMove(event) {
      const before = this.#pointers.get(event.pointerId);
      if (!before) return;
      const [x, y] = this.#share(event);
      const [oldX, oldY] = this.#share(before);
      if (this.#pointers.size === 2) {
        const [still] = [...this.#pointers.values()].filter((p) => p.pointerId !== event.pointerId);
        const [otherX, otherY] = this.#share(still);
        const distance = (p) => Math.hypot(p.clientX - still.clientX, p.clientY - still.clientY);
        const factor = distance(event) / Math.max(distance(before), 1);
        this.#dragged = null; // what one finger does after a pinch is not meant
        this.#zoomTo(this.#zoom * factor, (x + otherX) / 2, (y + otherY) / 2);
      } else if (this.#dragged === "divider") this.#divideAt(100 * x);
      else if (this.#dragged === "image") this.#moveTo(this.#x + x - oldX, this.#y + y - oldY);
      this.#pointers.set(event.pointerId, event);
    }

    #onUp(event) {
      if (!this.#pointers.has(event.pointerId)) return;
      if (this.#pointers.size === 1 && this.#dragged === "divider")
        this.#divideAt(100 * this.#share(event)[0]);
      this.#forget(event);
    }

    #forget(event) {
      this.#pointers.delete(event.pointerId);
      if (!this.#pointers.size) this.#dragged = null;
    }
  }

  customElements.define("image-wipe", ImageWipe);
})();
