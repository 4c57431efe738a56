import type { Metadata } from "next";
import Image from "next/image";

export const metadata: Metadata = { title: "Image · next-chat" };

export default function Page() {
  return (
    <>
      <h1>Image</h1>
      <Image
        className="picture"
        src="/doorway.png"
        alt="A lit doorway at night"
        width={640}
        height={400}
        preload
        data-testid="picture"
      />
    </>
  );
}
