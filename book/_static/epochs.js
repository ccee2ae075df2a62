/* <run-epochs>, as book/_ext/epochs.py writes it: buttons choose a run, and one slider moves its
 * image, marker and numbers. Without scripts all runs stand below each other at their last epoch. */
customElements.define(
  "run-epochs",
  class extends HTMLElement {
    connectedCallback() {
      const runs = JSON.parse(this.querySelector("script").textContent);
      const sections = [...this.querySelectorAll(".run")];
      const buttons = [...this.querySelectorAll("input[type=radio]")];
      const range = this.querySelector("input[type=range]");
      const fetched = new Map();
      let chosen = runs.length - 1;
      let wanted = Infinity; // the epoch last asked for; a shorter run shows its last one
      const fetchFrame = ({ address, numbers }, epoch) => {
        const source = `${address}/${epoch}.png`;
        if (epoch < 1 || epoch > numbers.length || fetched.has(source)) return;
        const frame = new Image();
        frame.src = source;
        fetched.set(source, frame);
      };
      const show = () => {
        const run = runs[chosen];
        const section = sections[chosen];
        const count = run.numbers.length;
        const epoch = Math.min(wanted, count);
        for (const next of [epoch, epoch + 1, epoch - 1]) fetchFrame(run, next);
        sections.forEach((other) => (other.hidden = other !== section));
        range.max = count;
        range.value = epoch;
        range.setAttribute("aria-valuetext", `${epoch} of ${count}`);
        const image = section.querySelector("img.epoch");
        image.src = `${run.address}/${epoch}.png`;
        image.alt = image.alt.replace(/\d+(?=\.$)/, epoch);
        for (const place of section.querySelectorAll(".now")) place.textContent = epoch;
        section.querySelectorAll("td").forEach((cell, i) => {
          cell.textContent = run.numbers[epoch - 1][i];
        });
        const marker = section.querySelector(".marker");
        marker.removeAttribute("hidden");
        marker.setAttribute("transform", `translate(${run.x[epoch - 1]} 0)`);
      };
      range.addEventListener("input", () => {
        wanted = Number(range.value);
        show();
      });
      buttons.forEach((button, i) => {
        button.checked = i === chosen; // a browser may keep what it was before a reload
        button.addEventListener("change", () => {
          chosen = i;
          show();
        });
      });
      this.querySelector(".runs").hidden = runs.length < 2;
      this.querySelector(".choose").hidden = false;
      this.classList.add("live"); // the buttons name the run, so its heading isn't needed
      show();
    }
  },
);
