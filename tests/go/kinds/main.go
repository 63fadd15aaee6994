// Leaks goroutines of several go statements, the heap of each of known types, and says how many bytes there are of each type.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"unsafe"
)

const count = 200

// Lengths that the compiler does not know: what they are of is not on a stack.
var buffer, boxed, pointers = 16 << 10, 200, 8192

// record is larger than what has no type noted by the allocator, and its size is nearly that of a size class.
type record struct {
	next *record
	tag  *tag
	data [1120]byte
}

// tag is small: nothing but a record leads to it.
type tag struct {
	of   *record
	data [56]byte
}

// point is small and has no pointers: an interface leads to it.
type point struct{ x, y, z, w float64 }

// parcel is small: it is sent.
type parcel struct {
	next *parcel
	data [88]byte
}

// node is small: nothing tells what it is.
type node struct {
	next *node
	data [136]byte
}

// records keeps 20 records with a tag each.
func records() {
	done := make(chan struct{})
	var head *record
	for i := 0; i < 20; i++ {
		head = &record{next: head}
		head.tag = &tag{of: head}
	}
	<-done
	runtime.KeepAlive(head)
}

// buffers keeps 16 KiB without pointers.
func buffers() {
	done := make(chan struct{})
	data := make([]byte, buffer)
	<-done
	data[0]++
	runtime.KeepAlive(data)
}

// nodes keeps 100 of them.
func nodes() {
	done := make(chan struct{})
	var head *node
	for i := 0; i < 100; i++ {
		head = &node{next: head}
	}
	<-done
	runtime.KeepAlive(head)
}

// sends keeps 100 parcels, the last of which it sends.
func sends() {
	to := make(chan *parcel)
	var head *parcel
	for i := 0; i < 100; i++ {
		head = &parcel{next: head}
	}
	to <- head
}

// boxes keeps 200 points, each in an interface, and 64 KiB of pointers.
func boxes() {
	done := make(chan struct{})
	points := make([]any, boxed)
	for i := range points {
		points[i] = &point{x: float64(i)}
	}
	large := make([]*point, pointers)
	<-done
	runtime.KeepAlive(points)
	runtime.KeepAlive(large)
}

func main() {
	for i := 0; i < count; i++ {
		go records()
		go buffers()
		go nodes()
		go sends()
		go boxes()
	}
	for runtime.NumGoroutine() < 5*count+1 {
		runtime.Gosched()
	}
	// Until all of them wait.
	for i := 0; i < 1000; i++ {
		runtime.Gosched()
	}
	json.NewEncoder(os.Stdout).Encode(map[string]uintptr{
		"main.record":       count * 20 * unsafe.Sizeof(record{}),
		"main.tag":          count * 20 * unsafe.Sizeof(tag{}),
		"buffers":           count * 16 << 10,
		"nodes":             count * 100 * unsafe.Sizeof(node{}),
		"main.parcel":       count * 100 * unsafe.Sizeof(parcel{}),
		"main.point":        count * 200 * unsafe.Sizeof(point{}),
		"[]interface {}":    count * 200 * unsafe.Sizeof(any(nil)),
		"[]*main.point":     count * 8192 * unsafe.Sizeof(&point{}),
		"chan *main.parcel": count * 104,
	})
	bufio.NewReader(os.Stdin).ReadString('\n')
}
