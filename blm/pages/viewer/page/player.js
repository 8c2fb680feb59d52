"use strict";
/* Plays an episode: the first video that works leads, the other cameras and the cursor follow. */

const DRIFT_S = 0.08;

class Player {
  /** `moved(frame)` is called whenever another frame is shown, `changed(playing)` when playing begins or ends. */
  constructor(container, moved, changed) {
    this.container = container;
    this.moved = moved;
    this.changed = changed;
    this.speed = 1;
    this.playing = false;
    this.videos = [];
    this.pictures = [];
    this.frames = 1;
    this.fps = 30;
    this.frame = 0;
  }

  load(episode) {
    this.pause();
    for (const video of this.videos) video.close();
    this.frames = episode.frames;
    this.fps = episode.fps;
    this.videos = [];
    this.pictures = [];
    this.container.replaceChildren(...episode.streams.map((entry) => this.figure(entry)));
    this.seek(0);
  }

  figure(entry) {
    const figure = make("figure");
    let shown;
    if (entry.problem) {
      shown = make("div", "none", entry.problem);
    } else if (entry.folder) {
      const pictures = new PictureStream(entry, () => this.frame);
      this.pictures.push(pictures);
      shown = pictures.element;
    } else {
      const video = new VideoStream(entry, () => (this.frame + 0.5) / this.fps, 0.25 / this.fps);
      this.videos.push(video);
      shown = video.element;
    }
    figure.append(shown, make("figcaption", "", entry.camera));
    return figure;
  }

  seek(frame) {
    this.frame = Math.min(this.frames - 1, Math.max(0, frame));
    for (const stream of [...this.videos, ...this.pictures]) stream.show();
    this.began = { time: performance.now(), frame: this.frame };
    this.moved(this.frame);
  }

  setSpeed(speed) {
    this.speed = speed;
    for (const video of this.videos) video.element.playbackRate = speed;
    this.began = { time: performance.now(), frame: this.frame };
  }

  toggle() {
    if (this.playing) this.pause(); else this.play();
  }

  play() {
    if (this.frame >= this.frames - 1) this.seek(0);
    this.playing = true;
    this.began = { time: performance.now(), frame: this.frame };
    for (const video of this.videos) video.play(this.speed);
    this.changed(true);
    requestAnimationFrame(() => this.follow());
  }

  pause() {
    this.playing = false;
    for (const video of this.videos) video.element.pause();
    this.changed(false);
  }

  /** Seconds into the episode: the leading video's, or a clock's where no video works. */
  now() {
    const lead = this.videos.find((video) => video.works);
    if (lead) return { lead, seconds: lead.seconds() };
    const passed = (performance.now() - this.began.time) / 1000 * this.speed;
    return { lead: null, seconds: (this.began.frame + 0.5) / this.fps + passed };
  }

  follow() {
    if (!this.playing) return;
    const { lead, seconds } = this.now();
    const frame = Math.floor(seconds * this.fps + 1e-3);
    if (frame >= this.frames - 1 || (lead && lead.element.ended)) {
      this.pause();
      this.seek(this.frames - 1);
      return;
    }
    for (const video of this.videos) if (video !== lead) video.catchUp(seconds);
    if (frame !== this.frame && frame >= 0) {
      this.frame = frame;
      for (const pictures of this.pictures) pictures.show();
      this.moved(frame);
    }
    requestAnimationFrame(() => this.follow());
  }
}
