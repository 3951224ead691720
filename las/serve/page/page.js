"use strict";
const byId = (id) => document.getElementById(id);
const speak = byId("speak");
let key = ""; // nowhere but here
let refused = null; // the file that was sent without a key, or with a wrong one
let model = "";
let current = null; // the file whose text is shown
let address = null; // of it, for the player
let request = new AbortController();
let press = 0; // of the button; counts on when it ends, too
let recorder = null;

// --- what is said ---------------------------------------------------------------------------

function say(text) {
  byId("error").textContent = "";
  byId("status").textContent = text;
}

function fail(text) {
  byId("status").textContent = "";
  byId("error").textContent = text;
}

// --- the server -----------------------------------------------------------------------------

async function ask(path, options = {}) {
  const headers = new Headers(key ? { Authorization: `Bearer ${key}` } : {});
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) {
    byId("key-form").hidden = false;
    byId("key").focus();
  }
  let message = `${answer.status} ${answer.statusText}`; // of a proxy, say
  try {
    message = (await answer.json()).error.message;
  } catch { /* it is not the server's own */ }
  throw new Error(message);
}

async function findModel() {
  model = (await (await ask("v1/models")).json()).data[0].id;
}

// Sends a file; what is asked later ends what was asked before.
async function send(path, file, fields) {
  request.abort();
  request = new AbortController();
  const { signal } = request;
  if (!model) await findModel();
  const form = new FormData();
  for (const [name, value] of [["model", model], ...fields]) form.append(name, value);
  form.append("file", file, file.name);
  const answer = await ask(path, { method: "POST", body: form, signal });
  const found = await answer.text();
  signal.throwIfAborted();
  return found;
}

function failed(error) {
  if (error.name !== "AbortError") fail(error.message);
}

// --- a file and its text --------------------------------------------------------------------

function clear() {
  current = null;
  if (address) URL.revokeObjectURL(address);
  address = null;
  for (const id of ["player", "text", "parts"]) byId(id).replaceChildren();
  byId("more").hidden = true;
  byId("explanation").hidden = true;
}

async function transcribe(file) {
  clear();
  refused = file;
  say(`Transcribing ${file.name} …`);
  try {
    const fields = [["response_format", "verbose_json"], ["timestamp_granularities[]", "word"]];
    show(JSON.parse(await send("v1/audio/transcriptions", file, fields)), file);
    refused = null;
  } catch (error) {
    failed(error);
  }
}

function button(word) {
  const made = document.createElement("button");
  const percent = `${Math.round(100 * word.probability)}%`;
  made.type = "button";
  made.className = `word ${level(word.probability)}`;
  made.textContent = word.word;
  made.title = `${percent}, at ${word.start.toFixed(2)} s`;
  made.dataset.start = word.start;
  made.dataset.end = word.end;
  return made;
}

function show(found, file) {
  current = file;
  address = URL.createObjectURL(file);
  const audio = document.createElement("audio");
  audio.controls = true;
  audio.setAttribute("aria-label", file.name);
  audio.addEventListener("error", () => {
    fail("This browser cannot play the file. Under “Show attention” it can be played.");
  });
  audio.src = address;
  byId("player").replaceChildren(audio);
  const words = found.words.flatMap((word) => [button(word), " "]);
  byId("text").replaceChildren(...(words.length ? words : ["(no text)"]));
  byId("more").hidden = false;
  explained(byId("result"));
  say(`${file.name}: ${found.duration.toFixed(1)} s`);
}

async function explain() {
  say("Looking at attention …");
  try {
    const page = await send("explanations", current, []);
    // Its style is linked from this page, whose policy forbids that it comes with a text.
    const unstyled = page.replace(/<style>[^]*?<\/style>/, "");
    const parsed = new DOMParser().parseFromString(unstyled, "text/html");
    const parts = "header > .facts, header > audio, header > .note, main > *, footer > *";
    byId("parts").replaceChildren(...parsed.querySelectorAll(parts));
    byId("explanation").hidden = false;
    explained(byId("parts"));
    say("Attention is shown below the text.");
    byId("explanation-title").focus();
  } catch (error) {
    failed(error);
  }
}

// --- the microphone -------------------------------------------------------------------------

async function startRecording() {
  const mine = press += 1;
  let stream;
  speak.setAttribute("aria-pressed", "true");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    stopRecording();
    fail(`The microphone cannot be used: ${error.message}`);
    return;
  }
  const close = () => stream.getTracks().forEach((track) => track.stop());
  if (mine !== press) { // while the browser asked for permission
    close();
    say("Hold the button while you speak.");
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", async () => {
    close();
    let file;
    try {
      file = await asWav(new Blob(parts));
    } catch {
      fail("There is nothing in the recording. Hold the button while you speak.");
      return;
    }
    transcribe(file);
  });
  recorder.start();
  say("Recording. Let go to end it.");
}

function stopRecording() {
  press += 1;
  speak.setAttribute("aria-pressed", "false");
  if (recorder?.state === "recording") recorder.stop();
}

function held() {
  return speak.getAttribute("aria-pressed") === "true";
}

function listenToButton() {
  const isKey = (event) => event.key === " " || event.key === "Enter";
  speak.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || held()) return;
    speak.setPointerCapture(event.pointerId);
    startRecording();
  });
  for (const end of ["pointerup", "pointercancel", "blur"]) {
    speak.addEventListener(end, () => { if (held()) stopRecording(); });
  }
  speak.addEventListener("contextmenu", (event) => event.preventDefault());
  speak.addEventListener("keydown", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    if (!event.repeat && !held()) startRecording();
  });
  speak.addEventListener("keyup", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    if (held()) stopRecording();
  });
  // Of programs that press buttons for their user, and cannot hold them.
  speak.addEventListener("click", (event) => {
    if (event.detail === 0) (held() ? stopRecording : startRecording)();
  });
}

// --- the page -------------------------------------------------------------------------------

byId("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) transcribe(file);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) transcribe(file);
});
document.addEventListener("play", (event) => { // one sound at a time
  for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
}, true);
byId("explain").addEventListener("click", explain);
byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  try {
    await findModel();
    byId("key-form").hidden = true;
    say("The key is accepted.");
    if (refused) transcribe(refused);
  } catch (error) {
    failed(error);
  }
});
if (navigator.mediaDevices && window.MediaRecorder) {
  listenToButton();
} else {
  speak.disabled = true;
  byId("no-microphone").hidden = false;
}
findModel().catch((error) => {
  if (byId("key-form").hidden) failed(error); // a key is asked for in the form
});
