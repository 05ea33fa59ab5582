// Two pictures of one view under a divider. Without this script they stand side by side.
for (const box of document.querySelectorAll(".wipe:not(.on)")) {
  const stage = box.querySelector(".stage");
  const range = box.querySelector("input");
  const move = (percent) => {
    range.value = percent;
    box.style.setProperty("--at", `${range.value}%`);
  };
  const follow = (event) => {
    const area = stage.getBoundingClientRect();
    move(((event.clientX - area.left) / area.width) * 100);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  range.addEventListener("input", () => move(range.value)); // the keyboard, and the slider itself
  range.hidden = false;
  box.classList.add("on");
  move(50);
}
