// Reads a list of ScaledObjects as JSON from standard input; fails with KEDA's objection to the first that is not one.
// scripts/setup copies it to where its packages are.
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { text } from "node:stream/consumers";

for (const found of JSON.parse(await text(process.stdin))) new ScaledObject(found).validate();
