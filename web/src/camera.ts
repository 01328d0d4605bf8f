/** The camera, frame by frame. */

const OTHERWISE = "Pictures can be dropped, pasted or chosen.";
const WHY: Record<string, string> = {
  NotAllowedError: `The camera was not allowed. ${OTHERWISE}`,
  NotFoundError: `There is no camera here. ${OTHERWISE}`,
  SecurityError: "A browser gives a camera only to pages served over https, or from localhost.",
};

export class Camera {
  private stream: MediaStream | undefined;

  /** Shows what it sees in a video, and calls `lost` when it is taken away. */
  constructor(
    private readonly video: HTMLVideoElement,
    private readonly lost: () => void,
  ) {}

  get isOn(): boolean {
    return this.stream !== undefined;
  }

  /** Starts it. What the error says when it cannot be is for the user. */
  async start(): Promise<void> {
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      this.stream.getVideoTracks()[0].onended = this.lost;
      this.video.srcObject = this.stream;
      await this.video.play();
    } catch (error) {
      this.stop();
      const name = error instanceof DOMException ? error.name : "";
      throw new Error(WHY[name] ?? "The camera cannot be used: another program may have it.");
    }
    this.video.hidden = false;
  }

  stop(): void {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = undefined;
    this.video.srcObject = null;
    this.video.hidden = true;
  }

  /** What it sees when the page is next drawn; null when it is off by then. */
  async frame(): Promise<ImageBitmap | null> {
    do {
      await new Promise(requestAnimationFrame);
    } while (this.isOn && this.video.readyState < this.video.HAVE_CURRENT_DATA);
    return this.isOn ? createImageBitmap(this.video) : null;
  }
}
