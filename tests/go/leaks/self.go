package main

import (
	"bytes"
	"fmt"
	"path"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

type place struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

func (p *place) String() string {
	if p == nil {
		return "nowhere"
	}
	return fmt.Sprintf("%s %s:%d", p.Function, p.File, p.Line)
}

// A group is goroutines of one creation site, one blocking site and one wait reason.
type group struct {
	Class      string `json:"class"`
	Count      int    `json:"count"`
	WaitReason string `json:"wait_reason"`
	// Nil for the main goroutine, which no go statement created.
	CreatedBy *place `json:"created_by"`
	// The first frame outside runtime, sync and internal; nil if there is none.
	BlockedAt *place `json:"blocked_at"`
	Goids     []int  `json:"goids"`
}

// A statement has every goroutine of the program, in exactly one group.
type statement struct {
	Classes      []group `json:"classes"`
	NumGoroutine int     `json:"num_goroutine"`
}

// settle waits until the expected goroutines of every class have parked and nothing moves any more.
func settle(expected map[string]int, deadline time.Time) (statement, error) {
	var last statement
	for {
		said, err := look()
		if err != nil {
			return said, err
		}
		pending := unsettled(said, expected)
		if pending == "" && reflect.DeepEqual(said, last) {
			return said, nil
		}
		if time.Now().After(deadline) {
			return said, fmt.Errorf("the goroutines did not come to rest: %s", pending)
		}
		last = said
		time.Sleep(2 * time.Millisecond)
	}
}

func unsettled(said statement, expected map[string]int) string {
	listed := 0
	parked := map[string]int{}
	for _, group := range said.Classes {
		listed += group.Count
		switch group.WaitReason {
		case "running", "runnable", "copystack", "preempted", "waiting", "GC assist wait":
			if group.CreatedBy != nil {
				return fmt.Sprintf("%d goroutines created at %v are %s", group.Count, group.CreatedBy, group.WaitReason)
			}
		case "syscall":
			if group.Class == "syscall" {
				parked[group.Class] += group.Count
			}
		default:
			parked[group.Class] += group.Count
		}
	}
	if listed != said.NumGoroutine {
		return fmt.Sprintf("%d goroutines listed, %d counted", listed, said.NumGoroutine)
	}
	for class, n := range expected {
		if parked[class] != n {
			return fmt.Sprintf("%d of %d goroutines of class %s have parked", parked[class], n, class)
		}
	}
	return ""
}

// look parses the program's own dump of all its goroutines.
func look() (statement, error) {
	count := runtime.NumGoroutine()
	said := statement{NumGoroutine: count}
	index := map[string]int{}
	for _, block := range bytes.Split(dump(), []byte("\n\n")) {
		goid, one, err := parse(strings.Split(strings.TrimSpace(string(block)), "\n"))
		if err != nil {
			return said, err
		}
		key := fmt.Sprintf("%v\n%v\n%s", one.CreatedBy, one.BlockedAt, one.WaitReason)
		at, known := index[key]
		if !known {
			at = len(said.Classes)
			index[key] = at
			said.Classes = append(said.Classes, one)
		}
		said.Classes[at].Count++
		said.Classes[at].Goids = append(said.Classes[at].Goids, goid)
	}
	for _, group := range said.Classes {
		sort.Ints(group.Goids)
	}
	sort.Slice(said.Classes, func(i, j int) bool { return said.Classes[i].Goids[0] < said.Classes[j].Goids[0] })
	return said, nil
}

func dump() []byte {
	buffer := make([]byte, 1<<20)
	for {
		if n := runtime.Stack(buffer, true); n < len(buffer) {
			return buffer[:n]
		}
		buffer = make([]byte, 2*len(buffer))
	}
}

// parse reads one goroutine of a dump:
//
//	goroutine 18 [chan send, 2 minutes]:
//	main.startChanSend.func1()
//		/src/classes.go:62 +0x1d
//	created by main.startChanSend in goroutine 1
//		/src/classes.go:61 +0x4a
func parse(lines []string) (int, group, error) {
	var one group
	header := lines[0]
	open, shut := strings.IndexByte(header, '['), strings.IndexByte(header, ']')
	fields := strings.Fields(header)
	if open < 0 || shut < open || len(fields) < 3 || fields[0] != "goroutine" {
		return 0, one, fmt.Errorf("not the header of a goroutine: %q", header)
	}
	goid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, one, fmt.Errorf("not the header of a goroutine: %q", header)
	}
	reason, _, _ := strings.Cut(header[open+1:shut], ", ")
	one.WaitReason = strings.TrimSuffix(reason, " (scan)")
	for i := 1; i+1 < len(lines); i += 2 {
		// Not strings.CutPrefix, which Go 1.19 has not.
		name := strings.TrimPrefix(lines[i], "created by ")
		created := name != lines[i]
		if created {
			name, _, _ = strings.Cut(name, " in goroutine ")
		} else if arguments := strings.LastIndexByte(name, '('); arguments > 0 {
			name = name[:arguments]
		}
		at, err := parsePlace(name, lines[i+1])
		if err != nil {
			return 0, one, err
		}
		if created {
			one.CreatedBy = &at
		} else if one.BlockedAt == nil && !plumbing(at) {
			one.BlockedAt = &at
		}
	}
	for _, leak := range leaks {
		if one.CreatedBy != nil && one.CreatedBy.Function == leak.function {
			one.Class = leak.class
		}
	}
	return goid, one, nil
}

func parsePlace(function, line string) (place, error) {
	position, _, _ := strings.Cut(strings.TrimSpace(line), " +0x")
	colon := strings.LastIndexByte(position, ':')
	if colon < 0 {
		return place{}, fmt.Errorf("not a position: %q", line)
	}
	number, err := strconv.Atoi(position[colon+1:])
	if err != nil {
		return place{}, fmt.Errorf("not a position: %q", line)
	}
	return place{function, position[:colon], number}, nil
}

// plumbing tells whether a frame is part of how goroutines block rather than the code that does.
func plumbing(at place) bool {
	// time.Sleep and the like are named for another package, but live in the runtime.
	if path.Base(path.Dir(at.File)) == "runtime" && strings.Contains(at.File, "src/runtime/") || strings.HasPrefix(at.File, "runtime/") {
		return true
	}
	slash := strings.LastIndexByte(at.Function, '/') + 1
	dot := strings.IndexByte(at.Function[slash:], '.')
	if dot < 0 {
		return false
	}
	switch root, _, _ := strings.Cut(at.Function[:slash+dot], "/"); root {
	case "runtime", "sync", "internal":
		return true
	}
	return false
}
