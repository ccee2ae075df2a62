// Predictions: what a question is about stays folded until the reader has made a guess.
// The pages' side is book/_ext/predict.py. Without this script everything is simply visible.
"use strict";

(() => {
  const FOLDED = "predict-folded";

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // A guess is kept on the reader's machine, under the question's words. Storage may be forbidden.
  const key = (predict) => `predict:${predict.querySelector("p:not([class])").textContent}`;

  function recall(predict) {
    try {
      return localStorage.getItem(key(predict));
    } catch {
      return null;
    }
  }

  function remember(predict, guess) {
    try {
      localStorage.setItem(key(predict), guess);
    } catch {
      // Then the next visit asks again.
    }
  }

  // The outputs that a prediction folds and the paragraph behind them, or the next paragraph.
  function subjects(predict, places) {
    const wanted = Number(predict.dataset.outputs);
    const found = [];
    for (const place of places.slice(places.indexOf(predict) + 1)) {
      if (place.matches(".predict, h2")) break;
      const isOutput = place.matches(".cell_output");
      if (wanted === 0 && !isOutput) return [place];
      if (!isOutput) continue;
      found.push(place);
      if (found.length === wanted) {
        const behind = place.closest("div.cell").nextElementSibling;
        if (behind?.matches("p")) found.push(behind);
        break;
      }
    }
    return found;
  }

  function fold(predict, folded) {
    folded.forEach((part) => part.classList.add(FOLDED));
    const link = element("a", { href: `#${predict.id}` }, "Predict first");
    const note = element("p", { className: "predict-note" }, link, ": then this unfolds.");
    folded[0].before(note);
    return function unfold() {
      note.remove();
      folded.forEach((part) => part.classList.remove(FOLDED));
      // Some outputs measure their room when the window changes.
      window.dispatchEvent(new Event("resize"));
    };
  }

  function askForOption(predict, list, commit) {
    const title = predict.querySelector(".admonition-title");
    title.id = `${predict.id}-title`;
    list.classList.add("predict-options");
    list.setAttribute("role", "group");
    list.setAttribute("aria-labelledby", title.id);
    const buttons = [...list.children].map((item, index) => {
      const text = element("span", {}, ...item.childNodes);
      const button = element("button", { type: "button" }, text);
      item.setAttribute("role", "presentation");
      item.append(button);
      button.addEventListener("click", () => commit(String(index + 1)));
      return button;
    });
    return function answered(guess) {
      const right = Number(predict.dataset.answer);
      const chosen = Number(guess);
      buttons.forEach((button, index) => {
        button.setAttribute("aria-disabled", "true");
        button.setAttribute("aria-pressed", String(index + 1 === chosen));
        button.classList.toggle("is-right", index + 1 === right);
      });
      const words = (number) => buttons[number - 1].querySelector("span").textContent.trim();
      return chosen === right
        ? "Right."
        : `Your guess: ${words(chosen)}. The answer: ${words(right)}.`;
    };
  }

  function askForNumber(predict, commit) {
    const { unit, answer, tolerance } = predict.dataset;
    const input = element("input", { type: "number", step: "any", required: true });
    input.inputMode = "decimal";
    const button = element("button", { type: "submit" }, "That is my guess");
    const label = element("label", {}, "Your guess: ", input, unit ? ` ${unit}` : "");
    const form = element("form", { className: "predict-number" }, label, button);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      commit(input.value);
    });
    predict.append(form);
    return function answered(guess) {
      input.value = guess;
      input.readOnly = true;
      button.setAttribute("aria-disabled", "true");
      const size = (number) => `${Number(number).toLocaleString("en-GB")} ${unit}`.trim();
      const difference = Math.abs(Number(guess) - Number(answer));
      if (difference <= Number(tolerance)) return `Right: it is ${size(answer)}.`;
      const word = Number(guess) < Number(answer) ? "more" : "less";
      return `Your guess: ${size(guess)}. It is ${word}: ${size(answer)}.`;
    };
  }

  function start(predict, places) {
    const folded = subjects(predict, places);
    if (!folded.length) return;
    const unfold = fold(predict, folded);
    const result = element("p", { className: "predict-result" });
    result.setAttribute("role", "status");
    let done = false;

    function commit(guess) {
      if (done) return;
      done = true;
      result.textContent = answered(guess);
      predict.classList.add("is-answered");
      unfold();
      remember(predict, guess);
    }

    const list = predict.querySelector(":scope > ol");
    const answered = list ? askForOption(predict, list, commit) : askForNumber(predict, commit);
    predict.append(result);
    const before = recall(predict);
    if (before) commit(before);

    // A link into what is folded unfolds it.
    function follow() {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (target && folded.some((part) => part.contains(target))) {
        unfold();
        target.scrollIntoView();
      }
    }
    window.addEventListener("hashchange", follow);
    follow();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const places = [
      ...document.querySelectorAll(
        ".bd-article :is(.predict, h2, .cell_output), .bd-article section > p:not(.predict-note)",
      ),
    ];
    places.filter((place) => place.matches(".predict")).forEach((place) => start(place, places));
  });
})();
