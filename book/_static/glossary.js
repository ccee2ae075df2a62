// Shows a glossary entry at the link of its word: on pointing, on keyboard focus, and on the first
// tap; a second tap follows the link. The note stays while the pointer is on it; Escape closes it.

const GAP = 6;
const DELAY = 250; // milliseconds: the way from the link to the note
let shown = null;
let timer = 0;

function hide() {
  clearTimeout(timer);
  if (!shown) return;
  shown.note.hidden = true;
  shown = null;
}

function hideSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const { link, note } = shown ?? {};
    if (link && !link.matches(":hover, :focus-visible") && !note.matches(":hover")) hide();
  }, DELAY);
}

// Below the link's first line, or above it where there is more room; never beyond the window.
function place() {
  if (!shown) return;
  const { link, note } = shown;
  const word = link.getClientRects()[0];
  const width = document.documentElement.clientWidth;
  const left = Math.min(word.left, width - note.offsetWidth - GAP);
  const below = word.bottom + GAP;
  const above = word.top - GAP - note.offsetHeight;
  const fits = below + note.offsetHeight <= window.innerHeight || above < 0;
  note.style.left = `${Math.max(left, GAP)}px`;
  note.style.top = `${fits ? below : above}px`;
}

function show(link, note) {
  clearTimeout(timer);
  if (shown?.link === link) return;
  hide();
  note.hidden = false;
  shown = { link, note };
  place();
}

for (const word of document.querySelectorAll("a > .std-term")) {
  const link = word.parentElement;
  const note = document.getElementById(`note-${link.hash.slice(1)}`);
  if (!note) continue;
  link.classList.add("glossary-word");
  link.setAttribute("aria-describedby", note.id);
  let touched = false;
  let open = false;
  link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(link, note));
  link.addEventListener("pointerleave", hideSoon);
  link.addEventListener("pointerdown", (event) => {
    touched = event.pointerType !== "mouse";
    open = shown?.link === link;
  });
  link.addEventListener("focus", () => link.matches(":focus-visible") && show(link, note));
  link.addEventListener("blur", hideSoon);
  link.addEventListener("click", (event) => {
    if (touched && !open) {
      event.preventDefault();
      show(link, note);
    }
    touched = false;
  });
  note.addEventListener("pointerleave", hideSoon);
}

document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
document.addEventListener("pointerdown", (event) => {
  if (shown && !shown.note.contains(event.target) && !shown.link.contains(event.target)) hide();
});
window.addEventListener("scroll", place, { passive: true });
window.addEventListener("resize", hide);
