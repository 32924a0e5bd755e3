// Layer: apps/playground. The page's entry.

import { App } from "./page/app.js";

new App();
