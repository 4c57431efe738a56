import type { NextConfig } from "next";

const config: NextConfig = {
  // Native code, which is not bundled.
  serverExternalPackages: ["libsql"],
  // localhost on any port is allowed already; these are its other names.
  allowedDevOrigins: ["127.0.0.1", "[::1]"],
};

export default config;
