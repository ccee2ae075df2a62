/* <run-epochs>, as book/_ext/epochs.py writes it: one slider moves image, marker and numbers. */
customElements.define(
  "run-epochs",
  class extends HTMLElement {
    connectedCallback() {
      const { address, numbers, x } = JSON.parse(this.querySelector("script").textContent);
      const range = this.querySelector("input");
      const image = this.querySelector("img.epoch");
      const marker = this.querySelector(".marker");
      const fetched = new Map();
      const fetchFrame = (epoch) => {
        if (epoch < 1 || epoch > numbers.length || fetched.has(epoch)) return;
        const frame = new Image();
        frame.src = `${address}/${epoch}.png`;
        fetched.set(epoch, frame);
      };
      const show = () => {
        const epoch = Number(range.value);
        for (const next of [epoch, epoch + 1, epoch - 1]) fetchFrame(next);
        image.src = `${address}/${epoch}.png`;
        image.alt = image.alt.replace(/\d+/, epoch);
        for (const place of this.querySelectorAll(".now")) place.textContent = epoch;
        this.querySelectorAll("td").forEach((cell, i) => {
          cell.textContent = numbers[epoch - 1][i];
        });
        marker.setAttribute("transform", `translate(${x[epoch - 1]} 0)`);
        range.setAttribute("aria-valuetext", `${epoch} of ${numbers.length}`);
      };
      range.addEventListener("input", show);
      marker.removeAttribute("hidden");
      this.querySelector(".choose").hidden = false;
      range.value = numbers.length; // a browser may keep what it was before a reload
      show();
    }
  },
);
