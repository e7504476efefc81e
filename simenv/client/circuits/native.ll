; One walk over a Qiskit circuit through Qiskit's C interface: its operations into the flat arrays of
; a Program, and these as msgpack. It runs with the interpreter lock held, and no pointer outlives the call. At anything
; that has no plain row in a Program it gives up; the walk in Python then takes its place.

%Column = type { ptr, i64, i64 }  ; start, room, used; the latter in elements
; 0 rows: a name (16 bytes, zeros behind it), then numbers of qubits, clbits, parameters and 0, 16
; bits each; 1 ops, 2 qubits, 3 clbits: 16 bits; 4 parameters: double; 5 shape: bytes, numbers of
; qubits, clbits and registers, 64 bits each, then of each register its size, 64 bits, and its name
; with a zero behind it, then the rows; 6 tail: bytes, columns 1 to 4 as msgpack has them.
%Desk = type { [7 x %Column], ptr, ptr }  ; columns; the number of each clbit (16 bits); 65,535 x 32
                                          ; bits of scratch
%View = type { ptr, ptr, ptr, ptr, i64, i32, i32, i64 }  ; QkCircuitInstructionView of Qiskit 2.6

declare ptr @qk_circuit_borrow_from_python(ptr)
declare i32 @qk_circuit_num_qubits(ptr)
declare i32 @qk_circuit_num_clbits(ptr)
declare i64 @qk_circuit_num_classical_registers(ptr)
declare ptr @qk_circuit_get_classical_register(ptr, i64)
declare i64 @qk_classical_register_num_bits(ptr)
declare ptr @qk_classical_register_name(ptr)
declare void @qk_str_free(ptr)
declare void @qk_classical_register_circuit_bits(ptr, ptr, ptr)
declare i64 @qk_circuit_num_instructions(ptr)
declare zeroext i8 @qk_circuit_instruction_kind(ptr, i64)
declare void @qk_circuit_view_instruction(ptr, i64, ptr)
declare i64 @qk_param_stride()
declare zeroext i8 @qk_param_kind(ptr)
declare double @qk_param_as_real(ptr)
declare i64 @strlen(ptr)
declare ptr @strchr(ptr, i32)
declare i32 @llvm.bswap.i32(i32)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

@global_phase = private constant [12 x i8] c"global_phase"

; int pack(PyObject *circuit_data, double global_phase, Desk *desk): 1, or 0 if it gave up.
define i32 @pack(ptr %data, double %phase, ptr %desk) {
start:
  %view = alloca %View
  %circuit = call ptr @qk_circuit_borrow_from_python(ptr %data)
  %borrowed = icmp ne ptr %circuit, null
  br i1 %borrowed, label %clear, label %give_up

clear:
  %column = phi i64 [ 0, %start ], [ %column_next, %clear ]
  %used_at = getelementptr %Desk, ptr %desk, i64 0, i32 0, i64 %column, i32 2
  store i64 0, ptr %used_at
  %column_next = add i64 %column, 1
  %cleared = icmp eq i64 %column_next, 7
  br i1 %cleared, label %outline, label %clear

outline:
  %outlined = call i1 @outline(ptr %circuit, ptr %desk)
  br i1 %outlined, label %number, label %give_up

number:
  %numbered = call i1 @number_clbits(ptr %circuit, ptr %desk)
  br i1 %numbered, label %turn, label %give_up

turn:
  %turned = fcmp une double %phase, 0.0
  br i1 %turned, label %write_phase, label %begin

write_phase:
  %phase_op = call i1 @operation(ptr %desk, ptr @global_phase, i64 12, i64 0, i64 0, i64 1)
  %phase_value = call i1 @number(ptr %desk, double %phase)
  %phase_written = and i1 %phase_op, %phase_value
  br i1 %phase_written, label %begin, label %give_up

begin:
  %total = call i64 @qk_circuit_num_instructions(ptr %circuit)
  br label %more

more:
  %at = phi i64 [ 0, %begin ], [ %at_next, %carried ]
  %done = icmp eq i64 %at, %total
  br i1 %done, label %packed, label %look

look:
  %kind = call zeroext i8 @qk_circuit_instruction_kind(ptr %circuit, i64 %at)
  switch i8 %kind, label %give_up [ i8 0, label %carry    ; a standard gate
                                    i8 1, label %carry    ; barrier
                                    i8 3, label %carry    ; measure
                                    i8 4, label %carry ]  ; reset

carry:
  call void @qk_circuit_view_instruction(ptr %circuit, i64 %at, ptr %view)
  %well = call i1 @instruction(ptr %desk, ptr %view)
  br i1 %well, label %carried, label %give_up

carried:
  %at_next = add i64 %at, 1
  br label %more

packed:
  %shaped = call i1 @append_rows(ptr %desk)
  %ops_well = call i1 @binary(ptr %desk, i64 1, i64 2)
  %qubits_well = call i1 @binary(ptr %desk, i64 2, i64 2)
  %clbits_well = call i1 @binary(ptr %desk, i64 3, i64 2)
  %params_well = call i1 @binary(ptr %desk, i64 4, i64 8)
  %well_1 = and i1 %shaped, %ops_well
  %well_2 = and i1 %qubits_well, %clbits_well
  %well_3 = and i1 %well_1, %params_well
  %well_4 = and i1 %well_2, %well_3
  br i1 %well_4, label %whole, label %give_up

whole:
  ret i32 1

give_up:
  ret i32 0
}

; The beginning of the shape. False: more bits than a Program can number.
define internal i1 @outline(ptr %circuit, ptr %desk) {
start:
  %qubits_32 = call i32 @qk_circuit_num_qubits(ptr %circuit)
  %clbits_32 = call i32 @qk_circuit_num_clbits(ptr %circuit)
  %registers = call i64 @qk_circuit_num_classical_registers(ptr %circuit)
  %qubits = zext i32 %qubits_32 to i64
  %clbits = zext i32 %clbits_32 to i64
  %few_qubits = icmp ule i64 %qubits, 65535
  %few_clbits = icmp ule i64 %clbits, 65535
  %to = call ptr @take(ptr %desk, i64 5, i64 24, i64 1)
  %clbits_to = getelementptr i64, ptr %to, i64 1
  %registers_to = getelementptr i64, ptr %to, i64 2
  store i64 %qubits, ptr %to
  store i64 %clbits, ptr %clbits_to
  store i64 %registers, ptr %registers_to
  %few = and i1 %few_qubits, %few_clbits
  ret i1 %few
}

; A register into the shape. False: no room, or a name that C writes as it writes another one: a
; zero in a name comes as a backslash and "0".
define internal i1 @register(ptr %desk, ptr %register, i64 %size) {
start:
  %name = call ptr @qk_classical_register_name(ptr %register)
  %escaped = call ptr @strchr(ptr %name, i32 92)
  %plain = icmp eq ptr %escaped, null
  %length = call i64 @strlen(ptr %name)
  %bytes = add i64 %length, 9
  %to = call ptr @take(ptr %desk, i64 5, i64 %bytes, i64 1)
  %fits = icmp ne ptr %to, null
  %well = and i1 %plain, %fits
  br i1 %well, label %write, label %leave

write:
  store i64 %size, ptr %to, align 1
  %name_to = getelementptr i8, ptr %to, i64 8
  %name_bytes = add i64 %length, 1
  call void @llvm.memcpy.p0.p0.i64(ptr %name_to, ptr %name, i64 %name_bytes, i1 false)
  br label %leave

leave:
  call void @qk_str_free(ptr %name)
  ret i1 %well
}

; The rows into the shape. False: no room.
define internal i1 @append_rows(ptr %desk) {
start:
  %used_at = getelementptr %Desk, ptr %desk, i64 0, i32 0, i64 0, i32 2
  %used = load i64, ptr %used_at
  %rows = load ptr, ptr %desk
  %bytes = mul i64 %used, 24
  %to = call ptr @take(ptr %desk, i64 5, i64 %bytes, i64 1)
  %fits = icmp ne ptr %to, null
  br i1 %fits, label %write, label %full

write:
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %rows, i64 %bytes, i1 false)
  ret i1 true

full:
  ret i1 false
}

; A column into the tail, as msgpack writes bytes: with 8, 16 or 32 bits of length, big-endian, as
; few as will do. There must be room for four bytes more. False: no room.
define internal i1 @binary(ptr %desk, i64 %column, i64 %width) {
start:
  %from_at = getelementptr %Desk, ptr %desk, i64 0, i32 0, i64 %column
  %used_at = getelementptr %Column, ptr %from_at, i64 0, i32 2
  %from = load ptr, ptr %from_at
  %used = load i64, ptr %used_at
  %bytes = mul i64 %used, %width
  %in_8 = icmp ult i64 %bytes, 256
  %in_16 = icmp ult i64 %bytes, 65536
  %kind_16 = select i1 %in_16, i8 197, i8 198
  %kind = select i1 %in_8, i8 196, i8 %kind_16
  %size_16 = select i1 %in_16, i64 2, i64 4
  %size = select i1 %in_8, i64 1, i64 %size_16
  %head = add i64 %size, 1
  %total = add i64 %head, %bytes
  %to = call ptr @take(ptr %desk, i64 6, i64 %total, i64 1)
  %fits = icmp ne ptr %to, null
  br i1 %fits, label %write, label %full

write:
  %bits = mul i64 %size, 8
  %idle_bits = sub i64 32, %bits
  %idle = trunc i64 %idle_bits to i32
  %bytes_32 = trunc i64 %bytes to i32
  %aligned = shl i32 %bytes_32, %idle
  %length = call i32 @llvm.bswap.i32(i32 %aligned)
  %length_to = getelementptr i8, ptr %to, i64 1
  %bytes_to = getelementptr i8, ptr %to, i64 %head
  store i8 %kind, ptr %to
  store i32 %length, ptr %length_to, align 1
  call void @llvm.memcpy.p0.p0.i64(ptr %bytes_to, ptr %from, i64 %bytes, i1 false)
  ret i1 true

full:
  ret i1 false
}

; Registers one after the other, loose bits behind them. False: registers share a bit, or one has a
; name that will not do.
define internal i1 @number_clbits(ptr %circuit, ptr %desk) {
start:
  %numbers_at = getelementptr %Desk, ptr %desk, i64 0, i32 1
  %numbers = load ptr, ptr %numbers_at
  %scratch_at = getelementptr %Desk, ptr %desk, i64 0, i32 2
  %scratch = load ptr, ptr %scratch_at
  %count_32 = call i32 @qk_circuit_num_clbits(ptr %circuit)
  %count = zext i32 %count_32 to i64
  %bytes = mul i64 %count, 2
  call void @llvm.memset.p0.i64(ptr %numbers, i8 -1, i64 %bytes, i1 false)  ; -1: no number yet
  %registers = call i64 @qk_circuit_num_classical_registers(ptr %circuit)
  br label %register_more

register_more:
  %register_at = phi i64 [ 0, %start ], [ %register_next, %register_done ]
  %first = phi i64 [ 0, %start ], [ %after, %register_done ]
  %registers_done = icmp eq i64 %register_at, %registers
  br i1 %registers_done, label %loose_more, label %register_open

register_open:
  %register = call ptr @qk_circuit_get_classical_register(ptr %circuit, i64 %register_at)
  %size = call i64 @qk_classical_register_num_bits(ptr %register)
  %after = add i64 %first, %size
  %named = call i1 @register(ptr %desk, ptr %register, i64 %size)
  br i1 %named, label %register_bits, label %shared

register_bits:
  call void @qk_classical_register_circuit_bits(ptr %register, ptr %circuit, ptr %scratch)
  br label %bit_more

bit_more:
  %index = phi i64 [ 0, %register_bits ], [ %index_next, %bit_number ]
  %bits_done = icmp eq i64 %index, %size
  br i1 %bits_done, label %register_done, label %bit_read

bit_read:
  %bit_at = getelementptr i32, ptr %scratch, i64 %index
  %bit_32 = load i32, ptr %bit_at
  %bit_there = icmp ult i32 %bit_32, %count_32
  br i1 %bit_there, label %bit_look, label %shared

bit_look:
  %bit = zext i32 %bit_32 to i64
  %number_at = getelementptr i16, ptr %numbers, i64 %bit
  %old = load i16, ptr %number_at
  %free = icmp eq i16 %old, -1
  br i1 %free, label %bit_number, label %shared

bit_number:
  %number = add i64 %first, %index
  %number_16 = trunc i64 %number to i16
  store i16 %number_16, ptr %number_at
  %index_next = add i64 %index, 1
  br label %bit_more

register_done:
  %register_next = add i64 %register_at, 1
  br label %register_more

loose_more:
  %loose = phi i64 [ 0, %register_more ], [ %loose_next, %loose_look ]
  %next = phi i64 [ %first, %register_more ], [ %next_after, %loose_look ]
  %loose_done = icmp eq i64 %loose, %count
  br i1 %loose_done, label %numbered, label %loose_look

loose_look:
  %loose_at = getelementptr i16, ptr %numbers, i64 %loose
  %loose_old = load i16, ptr %loose_at
  %is_loose = icmp eq i16 %loose_old, -1
  %next_16 = trunc i64 %next to i16
  %loose_number = select i1 %is_loose, i16 %next_16, i16 %loose_old
  store i16 %loose_number, ptr %loose_at
  %one_more = zext i1 %is_loose to i64
  %next_after = add i64 %next, %one_more
  %loose_next = add i64 %loose, 1
  br label %loose_more

numbered:
  ret i1 true

shared:
  ret i1 false
}

; One instruction into all columns. False: no room for it, or a parameter that is no finite number.
define internal i1 @instruction(ptr %desk, ptr %view) {
start:
  %name = load ptr, ptr %view
  %qubits_at = getelementptr %View, ptr %view, i64 0, i32 1
  %qubits = load ptr, ptr %qubits_at
  %clbits_at = getelementptr %View, ptr %view, i64 0, i32 2
  %clbits = load ptr, ptr %clbits_at
  %params_at = getelementptr %View, ptr %view, i64 0, i32 3
  %params = load ptr, ptr %params_at
  %length_at = getelementptr %View, ptr %view, i64 0, i32 4
  %length = load i64, ptr %length_at
  %num_qubits_at = getelementptr %View, ptr %view, i64 0, i32 5
  %num_qubits_32 = load i32, ptr %num_qubits_at
  %num_qubits = zext i32 %num_qubits_32 to i64
  %num_clbits_at = getelementptr %View, ptr %view, i64 0, i32 6
  %num_clbits_32 = load i32, ptr %num_clbits_at
  %num_clbits = zext i32 %num_clbits_32 to i64
  %num_params_at = getelementptr %View, ptr %view, i64 0, i32 7
  %num_params = load i64, ptr %num_params_at
  %numbers_at = getelementptr %Desk, ptr %desk, i64 0, i32 1
  %numbers = load ptr, ptr %numbers_at
  %op_well = call i1 @operation(ptr %desk, ptr %name, i64 %length, i64 %num_qubits,
                                i64 %num_clbits, i64 %num_params)
  %qubits_well = call i1 @bits(ptr %desk, i64 2, ptr %qubits, i64 %num_qubits, ptr null)
  %clbits_well = call i1 @bits(ptr %desk, i64 3, ptr %clbits, i64 %num_clbits, ptr %numbers)
  %bits_well = and i1 %qubits_well, %clbits_well
  %well = and i1 %op_well, %bits_well
  br i1 %well, label %params_check, label %give_up

params_check:
  %none = icmp eq i64 %num_params, 0
  br i1 %none, label %written, label %params_begin

params_begin:
  %stride = call i64 @qk_param_stride()
  br label %param

param:
  %index = phi i64 [ 0, %params_begin ], [ %index_next, %param_done ]
  %offset = mul i64 %index, %stride
  %param_at = getelementptr i8, ptr %params, i64 %offset
  %kind = call zeroext i8 @qk_param_kind(ptr %param_at)
  switch i8 %kind, label %give_up [ i8 1, label %param_read    ; a real number
                                    i8 3, label %param_read ]  ; an integer

param_read:
  %value = call double @qk_param_as_real(ptr %param_at)
  %param_well = call i1 @number(ptr %desk, double %value)
  br i1 %param_well, label %param_done, label %give_up

param_done:
  %index_next = add i64 %index, 1
  %params_done = icmp eq i64 %index_next, %num_params
  br i1 %params_done, label %written, label %param

written:
  ret i1 true

give_up:
  ret i1 false
}

; Bits of a circuit into a column, by their numbers there or through a table of numbers.
define internal i1 @bits(ptr %desk, i64 %column, ptr %from, i64 %count, ptr %numbers) {
start:
  %to = call ptr @take(ptr %desk, i64 %column, i64 %count, i64 2)
  %fits = icmp ne ptr %to, null
  br i1 %fits, label %more, label %full

more:
  %index = phi i64 [ 0, %start ], [ %index_next, %write ]
  %done = icmp eq i64 %index, %count
  br i1 %done, label %written, label %read

read:
  %bit_at = getelementptr i32, ptr %from, i64 %index
  %bit_32 = load i32, ptr %bit_at
  %bit_16 = trunc i32 %bit_32 to i16
  %direct = icmp eq ptr %numbers, null
  br i1 %direct, label %write, label %translate

translate:
  %bit = zext i32 %bit_32 to i64
  %number_at = getelementptr i16, ptr %numbers, i64 %bit
  %number = load i16, ptr %number_at
  br label %write

write:
  %value = phi i16 [ %bit_16, %read ], [ %number, %translate ]
  %value_at = getelementptr i16, ptr %to, i64 %index
  store i16 %value, ptr %value_at
  %index_next = add i64 %index, 1
  br label %more

written:
  ret i1 true

full:
  ret i1 false
}

; A parameter. False: it is infinite or no number, which makes its difference with itself no 0.
define internal i1 @number(ptr %desk, double %value) {
start:
  %difference = fsub double %value, %value
  %finite = fcmp oeq double %difference, 0.0
  br i1 %finite, label %place, label %refuse

place:
  %to = call ptr @take(ptr %desk, i64 4, i64 1, i64 8)
  %fits = icmp ne ptr %to, null
  br i1 %fits, label %write, label %refuse

write:
  store double %value, ptr %to
  ret i1 true

refuse:
  ret i1 false
}

; An operation into `ops`, and at its first use into `rows`. False: no room, or a long name.
define internal i1 @operation(ptr %desk, ptr %name, i64 %length, i64 %qubits, i64 %clbits,
                              i64 %params) {
start:
  %row = alloca [3 x i64]
  %row_2 = getelementptr i64, ptr %row, i64 1
  %row_3 = getelementptr i64, ptr %row, i64 2
  %clbits_up = shl i64 %clbits, 16
  %params_up = shl i64 %params, 32
  %sizes_1 = or i64 %qubits, %clbits_up
  %sizes = or i64 %sizes_1, %params_up
  store i64 0, ptr %row
  store i64 0, ptr %row_2
  store i64 %sizes, ptr %row_3
  %short = icmp ule i64 %length, 16
  br i1 %short, label %spell, label %refuse

spell:
  call void @llvm.memcpy.p0.p0.i64(ptr %row, ptr %name, i64 %length, i1 false)
  %name_1 = load i64, ptr %row
  %name_2 = load i64, ptr %row_2
  %rows = load ptr, ptr %desk
  %used_at = getelementptr %Desk, ptr %desk, i64 0, i32 0, i64 0, i32 2
  %used = load i64, ptr %used_at
  br label %more

more:
  %op = phi i64 [ 0, %spell ], [ %op_next, %other ]
  %unknown = icmp eq i64 %op, %used
  br i1 %unknown, label %new, label %compare

compare:
  %known_at = getelementptr [3 x i64], ptr %rows, i64 %op
  %known_at_2 = getelementptr i64, ptr %known_at, i64 1
  %known_at_3 = getelementptr i64, ptr %known_at, i64 2
  %known_1 = load i64, ptr %known_at
  %known_2 = load i64, ptr %known_at_2
  %known_3 = load i64, ptr %known_at_3
  %differ_1 = xor i64 %known_1, %name_1
  %differ_2 = xor i64 %known_2, %name_2
  %differ_3 = xor i64 %known_3, %sizes
  %differ_12 = or i64 %differ_1, %differ_2
  %differ = or i64 %differ_12, %differ_3
  %same = icmp eq i64 %differ, 0
  br i1 %same, label %place, label %other

other:
  %op_next = add i64 %op, 1
  br label %more

new:
  %row_to = call ptr @take(ptr %desk, i64 0, i64 1, i64 24)
  %row_fits = icmp ne ptr %row_to, null
  br i1 %row_fits, label %row_write, label %refuse

row_write:
  call void @llvm.memcpy.p0.p0.i64(ptr %row_to, ptr %row, i64 24, i1 false)
  br label %place

place:
  %op_16 = trunc i64 %op to i16
  %op_to = call ptr @take(ptr %desk, i64 1, i64 1, i64 2)
  %op_fits = icmp ne ptr %op_to, null
  br i1 %op_fits, label %op_write, label %refuse

op_write:
  store i16 %op_16, ptr %op_to
  ret i1 true

refuse:
  ret i1 false
}

; The next `count` elements of a column, each of so many bytes; null where there is no room.
define internal ptr @take(ptr %desk, i64 %column, i64 %count, i64 %bytes) {
start:
  %column_at = getelementptr %Desk, ptr %desk, i64 0, i32 0, i64 %column
  %room_at = getelementptr %Column, ptr %column_at, i64 0, i32 1
  %used_at = getelementptr %Column, ptr %column_at, i64 0, i32 2
  %first = load ptr, ptr %column_at
  %room = load i64, ptr %room_at
  %used = load i64, ptr %used_at
  %after = add i64 %used, %count
  %fits = icmp ule i64 %after, %room
  br i1 %fits, label %grant, label %refuse

grant:
  store i64 %after, ptr %used_at
  %offset = mul i64 %used, %bytes
  %granted = getelementptr i8, ptr %first, i64 %offset
  ret ptr %granted

refuse:
  ret ptr null
}
