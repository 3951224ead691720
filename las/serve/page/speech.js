"use strict";
// Probabilities as words of explain.css, and recordings as files.

const LEVELS = [["good", 0.9], ["fair", 0.6], ["poor", -Infinity]];

function level(probability) {
  return LEVELS.find(([, least]) => probability >= least)[0];
}

// A WAV file of samples between -1 and 1.
function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => {
    for (let i = 0; i < letters.length; i += 1) view.setUint8(at + i, letters.charCodeAt(i));
  };
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => {
    view.setInt16(44 + 2 * i, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
  });
  return view.buffer;
}

// What MediaRecorder makes has no length and cannot be played from a time, and not every server
// reads it.
async function asWav(recording) {
  const rate = 16000;
  const context = new OfflineAudioContext(1, 1, rate); // decodes to its rate
  const audio = await context.decodeAudioData(await recording.arrayBuffer());
  const mono = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel += 1) {
    audio.getChannelData(channel).forEach((x, i) => { mono[i] += x / audio.numberOfChannels; });
  }
  return new File([wav(mono, rate)], "recording.wav", { type: "audio/wav" });
}
