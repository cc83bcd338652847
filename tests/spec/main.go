// Prints the official CSI descriptor as facts, one a line and sorted, for tests/spec.rs to compare.
package main

import (
	"fmt"
	"sort"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var lines []string

func fact(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }

// Every option that is set, extensions under their full names.
func options(of protoreflect.Descriptor) {
	of.Options().ProtoReflect().Range(func(option protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		fact("option %s %s = %s", of.FullName(), option.FullName(), value)
		return true
	})
}

func field(f protoreflect.FieldDescriptor) {
	kind := f.Kind().String()
	if f.Message() != nil {
		kind = string(f.Message().FullName())
	} else if f.Enum() != nil {
		kind = string(f.Enum().FullName())
	}
	oneof := "-"
	if f.ContainingOneof() != nil {
		oneof = string(f.ContainingOneof().Name())
	}
	fact("field %s %d %s %s map=%t oneof=%s presence=%t json=%s", f.FullName(), f.Number(), f.Cardinality(), kind,
		f.IsMap(), oneof, f.HasPresence(), f.JSONName())
	options(f)
}

func enums(all protoreflect.EnumDescriptors) {
	for i := range all.Len() {
		e := all.Get(i)
		fact("enum %s", e.FullName())
		options(e)
		for v := range e.Values().Len() {
			value := e.Values().Get(v)
			fact("value %s.%s %d", e.FullName(), value.Name(), value.Number())
			value.Options().ProtoReflect().Range(func(o protoreflect.FieldDescriptor, set protoreflect.Value) bool {
				fact("option %s.%s %s = %s", e.FullName(), value.Name(), o.FullName(), set)
				return true
			})
		}
		for r := range e.ReservedRanges().Len() {
			fact("reserved %s %d to %d", e.FullName(), e.ReservedRanges().Get(r)[0], e.ReservedRanges().Get(r)[1])
		}
		for n := range e.ReservedNames().Len() {
			fact("reserved %s %s", e.FullName(), e.ReservedNames().Get(n))
		}
	}
}

func messages(all protoreflect.MessageDescriptors) {
	for i := range all.Len() {
		m := all.Get(i)
		fact("message %s", m.FullName())
		options(m)
		for f := range m.Fields().Len() {
			field(m.Fields().Get(f))
		}
		for r := range m.ReservedRanges().Len() {
			fact("reserved %s %d to %d", m.FullName(), m.ReservedRanges().Get(r)[0], m.ReservedRanges().Get(r)[1]-1)
		}
		for n := range m.ReservedNames().Len() {
			fact("reserved %s %s", m.FullName(), m.ReservedNames().Get(n))
		}
		enums(m.Enums())
		messages(m.Messages())
	}
}

func main() {
	file := csi.File_csi_proto
	fact("file %s %s", file.Package(), file.Syntax())
	options(file)
	for i := range file.Extensions().Len() {
		x := file.Extensions().Get(i)
		fact("extension %s %s", x.FullName(), x.ContainingMessage().FullName())
		field(x)
	}
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		fact("service %s", s.FullName())
		options(s)
		for j := range s.Methods().Len() {
			m := s.Methods().Get(j)
			fact("method %s %s -> %s streams=%t,%t", m.FullName(), m.Input().FullName(), m.Output().FullName(),
				m.IsStreamingClient(), m.IsStreamingServer())
			options(m)
		}
	}
	enums(file.Enums())
	messages(file.Messages())
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
}
