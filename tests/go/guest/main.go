// Command guest is the first process of a virtual machine that parkwarden is tried in. It does the steps of /plan.json one
// after the other, says what came of each in a line on the console, and powers the machine off. It judges nothing: whoever
// started the machine compares.
//
// A line is "@@ " and base64 of gzip of JSON: a serial console is slow, and the kernel may write to it too.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"
)

// A step is what to do; which fields count depends on its kind.
type step struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	// What parkwarden is called with; {pid} stands for the target's.
	Arguments []string `json:"arguments"`
	// A Go program and its arguments.
	Program []string `json:"program"`
	// How often.
	Tries int `json:"tries"`
	// Under which path parkwarden is called, if not its own.
	As string `json:"as"`
}

// An outcome is what came of a step.
type outcome struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// What the guest itself could not do; nothing of parkwarden's.
	Failed string `json:"failed,omitempty"`
	// How parkwarden ended: its exit status, or minus the signal's number.
	Code   int    `json:"code"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// What the Go program said of itself.
	Said json.RawMessage `json:"said,omitempty"`
	// Whatever else the kind of step brings.
	Found map[string]any `json:"found,omitempty"`
}

var steps = map[string]func(step, *outcome) error{
	"system":   system,
	"run":      run,
	"watch":    watch,
	"look":     look,
	"vitals":   vitals,
	"agent":    agent,
	"oom":      oom,
	"signals":  signals,
	"mount":    mountKind,
	"messages": messages,
	"apparmor": apparmor,
}

func main() {
	err := prepare()
	var plan []step
	if err == nil {
		var file []byte
		if file, err = os.ReadFile("/plan.json"); err == nil {
			err = json.Unmarshal(file, &plan)
		}
	}
	if err != nil {
		say(outcome{Name: "guest", Failed: err.Error()})
	}
	for _, step := range plan {
		begun := time.Now()
		result := outcome{Name: step.Name}
		if do := steps[step.Kind]; do == nil {
			result.Failed = "no such step: " + step.Kind
		} else if err := do(step, &result); err != nil {
			result.Failed = err.Error()
		}
		result.Seconds = time.Since(begun).Seconds()
		say(result)
	}
	say(outcome{Name: "end"})
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func say(result outcome) {
	document, err := json.Marshal(result)
	if err != nil {
		document, _ = json.Marshal(outcome{Name: result.Name, Failed: err.Error()})
	}
	var line bytes.Buffer
	text := base64.NewEncoder(base64.StdEncoding, &line)
	compressed := gzip.NewWriter(text)
	compressed.Write(document)
	compressed.Close()
	text.Close()
	fmt.Printf("\n@@ %s\n", line.String())
}
