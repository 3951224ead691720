"use strict";
// Without this script the page shows the same; it adds the spotlight and what a click plays.
function explained(root) {
  const audio = root.querySelector("audio");
  let stopAt = Infinity;

  for (const section of root.querySelectorAll("section.decoded")) {
    const svg = section.querySelector("svg");
    const caption = section.querySelector(".hint");
    if (!svg || !caption) continue;
    const stage = svg.querySelector(".stage");
    const slice = svg.querySelector(".slice");
    const centre = svg.querySelector(".centre");
    const hint = caption.textContent;
    const dim = () => {
      stage.classList.remove("lit");
      caption.textContent = hint;
      for (const row of svg.querySelectorAll(".row.lit")) row.classList.remove("lit");
    };
    for (const row of svg.querySelectorAll(".row")) {
      row.addEventListener("pointerenter", () => {
        dim();
        const box = slice.getAttribute("viewBox").split(" ");
        slice.setAttribute("viewBox", [0, row.dataset.row, box[2], 1].join(" "));
        for (const end of ["x1", "x2"]) centre.setAttribute(end, row.dataset.x);
        stage.classList.add("lit");
        row.classList.add("lit");
        caption.textContent = row.querySelector("title").textContent;
      });
    }
    svg.addEventListener("pointerleave", dim);
  }
  if (!audio) return;

  const play = (start, end) => {
    stopAt = end;
    audio.currentTime = start;
    audio.play().catch(() => {}); // the element itself tells what it cannot play
  };
  for (const word of root.querySelectorAll("[data-start]")) {
    word.addEventListener("click", () => {
      play(Number(word.dataset.start), Number(word.dataset.end));
    });
  }

  const heads = [...root.querySelectorAll(".playhead")];
  const words = [...root.querySelectorAll("button.word")];
  const follow = () => {
    const now = audio.currentTime;
    if (now >= stopAt) { audio.pause(); stopAt = Infinity; }
    for (const head of heads) {
      const { from, to, left, scale } = head.dataset;
      const inside = !audio.paused && now >= from && now <= to;
      head.style.visibility = inside ? "visible" : "hidden";
      const x = Number(left) + (now - from) * scale;
      for (const end of ["x1", "x2"]) head.setAttribute(end, x);
    }
    for (const word of words) {
      const inside = !audio.paused && now >= word.dataset.start && now < word.dataset.end;
      word.classList.toggle("lit", inside);
    }
    if (!audio.paused) requestAnimationFrame(follow);
  };
  audio.addEventListener("play", follow);
  audio.addEventListener("pause", follow);
  audio.addEventListener("seeked", () => { if (audio.paused) follow(); });
}
